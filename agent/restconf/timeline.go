package restconf

import (
	"sync"
	"time"
)

// timeline knows when the log had how many of the agent's entries. Entries
// have no time of their own, and a clock that can be set proves nothing: the
// timeline only makes sure that whoever asks for the entries after a time gets
// all of them, and perhaps some before it.
type timeline struct {
	mu    sync.Mutex // guards what follows
	marks []mark     // in the order in which they were made
}

// mark says that the log had count entries at a time.
type mark struct {
	at    time.Time // the first at which that was seen
	count int
}

// maxMarks bounds the marks. When there are more, every second is forgotten.
const maxMarks = 1024

// note remembers that the log has count entries now.
func (t *timeline) note(now time.Time, count int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if last := len(t.marks) - 1; last >= 0 && t.marks[last].count == count {
		return // what was there earlier is there now
	}
	if len(t.marks) == maxMarks {
		t.thin()
	}
	t.marks = append(t.marks, mark{now, count})
}

func (t *timeline) thin() {
	kept := t.marks[:0]
	for i := 1; i < len(t.marks); i += 2 {
		kept = append(kept, t.marks[i])
	}
	t.marks = kept
}

// before returns a number of entries that were all recorded at since or
// before, the largest that is certain. Marks after one that is later than since
// do not count: the clock was set back.
func (t *timeline) before(since time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	count := 0
	for _, m := range t.marks {
		if m.at.After(since) {
			break
		}
		count = m.count
	}
	return count
}
