// Package config watches how the kernel is configured to treat packets, in
// every network namespace that can be reached: what copies them, carries them
// away or diverts them, who set it up, and when it goes.
//
// Where the kernel announces changes it listens; everything is also read again
// as a whole, at least every second or as often as fifty times its cost, and at
// once when announcements were lost. It changes nothing, loads no kernel
// module, and judges nothing.
package config

import (
	"context"
	"fmt"
	"sync"
	"time"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netns"
)

const (
	defaultNamespaces = 128
	lookEvery         = 100 * time.Millisecond // for namespaces that processes are in
	lookDeepEvery     = 2 * time.Second        // for those of threads, open files and mounts
)

// Config says what is watched.
type Config struct {
	Ports []string // names of the ports of this namespace; a copy's way out is named by them where it can be

	// Ours tells whether a BPF program is one that the watch itself has put on a
	// port, by its kernel id. A name proves nothing: any filter may carry ours.
	// nil: none is.
	Ours func(program uint32) bool
	// Program says what a BPF program does, and whether it can take copies at
	// all. nil: what the functions that it calls tell.
	Program func(program uint32) (does string, copies bool)

	Alone         bool             // only the namespace of the calling thread
	MaxNamespaces int              // that are watched at a time; zero: 128
	Now           func() time.Time // zero: time.Now
}

// Watch is a watch on the configuration. It implements watch.Source.
type Watch struct {
	config Config
	home   uint64 // inode of the namespace of the ports

	mu     sync.Mutex        // guards what follows
	spaces map[uint64]*space // by inode of the namespace
	left   int               // namespaces beyond the limit
	lost   error             // why namespaces cannot be listed
}

// Open listens in every namespace and reads what is there. Its namespace is
// that of the calling thread.
func Open(c Config) (*Watch, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Program == nil {
		c.Program = newPrograms().of
	}
	if c.MaxNamespaces == 0 {
		c.MaxNamespaces = defaultNamespaces
	}
	here, err := netns.Current()
	if err != nil {
		return nil, fmt.Errorf("watch on configuration: %w", err)
	}
	w := &Watch{config: c, home: here.Inode, spaces: map[uint64]*space{}}
	first, err := openSpace(here, "", c)
	if err != nil {
		return nil, fmt.Errorf("watch on configuration: %w", err)
	}
	w.spaces[here.Inode] = first
	w.look(netns.Everything, true)
	return w, nil
}

// Run implements watch.Source.
func (w *Watch) Run(ctx context.Context, emit func(mirror.Observation)) error {
	var running sync.WaitGroup
	defer running.Wait()
	start := func(s *space) { running.Go(func() { s.run(ctx, emit) }) }
	for _, s := range w.all() {
		start(s)
	}
	if w.config.Alone {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	deep := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		opened, missed := w.look(netns.Processes, false)
		if missed || time.Since(deep) >= lookDeepEvery {
			more, _ := w.look(netns.Everything, false)
			opened, deep = append(opened, more...), time.Now()
		}
		for _, s := range opened {
			start(s)
		}
	}
}

// Close ends all listening.
func (w *Watch) Close() error {
	for _, s := range w.all() {
		s.close()
	}
	return nil
}

func (w *Watch) all() []*space {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*space
	for _, s := range w.spaces {
		all = append(all, s)
	}
	return all
}
