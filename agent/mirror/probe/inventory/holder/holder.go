// Package holder finds which processes hold sockets, BPF programs, taps and
// network namespaces, by the file descriptors that /proc shows.
//
// It only looks: it takes no descriptor out of a process and traces none. What
// it does not find may still be held by the kernel, by a message in flight, or
// by a process that root hides.
package holder

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Held is who holds what. Each list of processes is in the order of /proc and
// has at most maxHolders entries.
type Held struct {
	Sockets    map[uint64][]int // by inode; only those that were asked for
	Programs   map[uint32][]int // by id of the BPF program
	Links      map[uint32][]int // by id of the BPF link
	Taps       map[string][]int // by name of the tun or tap device
	Namespaces map[uint64][]int // by inode of the network namespace that a descriptor refers to
	Cut        bool             // the walk ended before it had seen all
}

const (
	maxHolders = 8
	maxOpen    = 500_000 // descriptors looked at in one walk
	batch      = 512     // names read from a folder at a time
)

// Walk looks at the descriptors of all processes. wanted are inodes of sockets.
// root is where proc(5) is mounted. It stops early, with Cut, when ctx is done.
func Walk(ctx context.Context, root string, wanted map[uint64]bool) *Held {
	h := &Held{Sockets: map[uint64][]int{}, Programs: map[uint32][]int{}, Links: map[uint32][]int{},
		Taps: map[string][]int{}, Namespaces: map[uint64][]int{}}
	w := walk{Held: h, ctx: ctx, wanted: wanted, link: make([]byte, 256)}
	each(root, func(name string) bool {
		if pid, err := strconv.Atoi(name); err == nil {
			w.process(pid, root+"/"+name)
		}
		return !h.Cut
	})
	if len(h.Sockets) < len(wanted) && !h.Cut {
		w.threads(root)
	}
	return h
}

type walk struct {
	*Held
	ctx    context.Context
	wanted map[uint64]bool
	seen   int // descriptors
	link   []byte
}

// threads looks into the descriptor tables that single threads may have of
// their own (clone(2) without CLONE_FILES, or a leader that has ended), where a
// process's own folder does not show them.
func (w *walk) threads(root string) {
	each(root, func(name string) bool {
		pid, err := strconv.Atoi(name)
		if err != nil {
			return true
		}
		tasks := root + "/" + name + "/task"
		each(tasks, func(thread string) bool {
			if thread != name {
				w.process(pid, tasks+"/"+thread)
			}
			return !w.Cut
		})
		return !w.Cut
	})
}

// process looks at the descriptors below a folder of a process or thread. One
// that ends meanwhile has none.
func (w *walk) process(pid int, folder string) {
	dir, err := os.Open(folder + "/fd")
	if err != nil {
		return
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(batch)
		for _, name := range names {
			n, err := unix.Readlinkat(int(dir.Fd()), name, w.link)
			if err == nil {
				w.descriptor(pid, folder, name, string(w.link[:n]))
			}
		}
		w.seen += len(names)
		if w.seen > maxOpen || w.ctx.Err() != nil {
			w.Cut = true
		}
		if err != nil || w.Cut {
			return
		}
	}
}

// descriptor keeps one if it is of a kind that is looked for.
func (w *walk) descriptor(pid int, folder, fd, target string) {
	switch {
	case strings.HasPrefix(target, "socket:["):
		if inode, ok := number(target, "socket:["); ok && w.wanted[inode] {
			add(w.Sockets, inode, pid)
		}
	case strings.HasPrefix(target, "net:["):
		if inode, ok := number(target, "net:["); ok {
			add(w.Namespaces, inode, pid)
		}
	case target == "anon_inode:bpf-prog":
		if id, err := strconv.ParseUint(field(folder+"/fdinfo/"+fd, "prog_id:"), 10, 32); err == nil {
			add(w.Programs, uint32(id), pid)
		}
	case strings.HasPrefix(target, "anon_inode:bpf") && strings.Contains(target, "link"):
		if id, err := strconv.ParseUint(field(folder+"/fdinfo/"+fd, "link_id:"), 10, 32); err == nil {
			add(w.Links, uint32(id), pid)
		}
	case target == "/dev/net/tun" || strings.HasSuffix(target, "/net/tun"):
		if device := field(folder+"/fdinfo/"+fd, "iff:"); device != "" {
			add(w.Taps, Printable(device, 32), pid)
		}
	}
}

func add[K comparable](m map[K][]int, key K, pid int) {
	if held := m[key]; len(held) < maxHolders && !slices.Contains(held, pid) {
		m[key] = append(held, pid)
	}
}

// number reads "socket:[123]".
func number(target, prefix string) (uint64, bool) {
	digits, closed := strings.CutSuffix(target[len(prefix):], "]")
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, closed && err == nil
}

// maxInfo bounds what is read of a file of /proc/PID.
const maxInfo = 16 << 10

// field is the first word after a key in a file of lines "key:\tvalue"; empty
// if there is none.
func field(file, key string) string {
	for line := range strings.Lines(head(file)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func head(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, maxInfo))
	return string(text)
}

// each gives the names in a folder until more says that it is enough. A folder
// that is gone has none.
func each(folder string, more func(name string) bool) {
	dir, err := os.Open(folder)
	if err != nil {
		return
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(batch)
		for _, name := range names {
			if !more(name) {
				return
			}
		}
		if errors.Is(err, io.EOF) || err != nil {
			return
		}
	}
}
