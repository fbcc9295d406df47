package findings

import (
	"errors"

	"waxseal/measure/finding"
)

// Bounds of those who follow.
const (
	maxFollowers = 8
	maxBehind    = 1024 // entries that a follower may be behind before it is cut off
)

// ErrFollowers means that as many follow as may.
var ErrFollowers = errors.New("findings are followed by as many as may: 8")

// Follower is told every entry from the moment on in which it began, after what
// is open.
type Follower struct {
	book    *Book
	entries chan Entry
}

// Follow begins to tell. Close ends it.
func (b *Book) Follow() (*Follower, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.followers) >= maxFollowers {
		return nil, ErrFollowers
	}
	f := &Follower{book: b, entries: make(chan Entry, max(maxBehind, len(b.open)))}
	for _, e := range b.open {
		f.entries <- e
	}
	b.followers[f] = true
	return f, nil
}

// Entries is closed when the follower was too slow, or is closed.
func (f *Follower) Entries() <-chan Entry { return f.entries }

// Close ends the telling.
func (f *Follower) Close() {
	f.book.mu.Lock()
	defer f.book.mu.Unlock()
	f.book.drop(f)
}

func (b *Book) drop(f *Follower) {
	if b.followers[f] {
		delete(b.followers, f)
		close(f.entries)
	}
}

// maxOpen bounds what is told first to a new follower.
const maxOpen = 1024

// tell tells an entry to all, and cuts off who does not listen.
func (b *Book) tell(subject string, step finding.Step, e Entry) {
	if step == finding.Ended {
		delete(b.open, subject)
	} else if _, known := b.open[subject]; known || len(b.open) < maxOpen {
		b.open[subject] = e
	}
	for f := range b.followers {
		select {
		case f.entries <- e:
		default:
			b.drop(f)
		}
	}
}
