// Package holder finds which processes hold sockets, BPF programs and
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
	Namespaces map[uint64][]int // by inode of the network namespace that a descriptor refers to
	Inside     map[uint64][]int // by inode of the network namespace that the process is in
	XDP        map[uint64][]int // sockets of AF_XDP, by inode
	ByThread   int              // how many of the sockets only a single thread holds
	Cut        bool             // the walk ended before it had seen all
}

const (
	maxHolders = 8
	maxOpen    = 500_000 // descriptors looked at in one walk
	batch      = 512     // names read from a folder at a time
)

// Want is what a walk looks for besides programs, links and namespaces.
type Want struct {
	Sockets map[uint64]bool // inodes
	Deep    bool            // look among single threads for the sockets that no process has
	XDP     bool            // ask each socket whether it is one of AF_XDP
}

// Walk looks at the descriptors of all processes. root is where proc(5) is
// mounted. It stops early, with Cut, when ctx is done.
func Walk(ctx context.Context, root string, want Want) *Held {
	h := &Held{Sockets: map[uint64][]int{}, Programs: map[uint32][]int{}, Links: map[uint32][]int{},
		Namespaces: map[uint64][]int{}, Inside: map[uint64][]int{}, XDP: map[uint64][]int{}}
	w := walk{Held: h, ctx: ctx, wanted: want.Sockets, xdp: want.XDP, link: make([]byte, 256)}
	each(root, func(name string) bool {
		if pid, err := strconv.Atoi(name); err == nil {
			w.inside(pid, root+"/"+name)
			w.process(pid, root+"/"+name)
		}
		return !h.Cut
	})
	if found := len(h.Sockets); want.Deep && found < len(want.Sockets) && !h.Cut {
		w.threads(root)
		h.ByThread = len(h.Sockets) - found
	}
	return h
}

type walk struct {
	*Held
	ctx    context.Context
	wanted map[uint64]bool
	xdp    bool
	seen   int // descriptors
	link   []byte
}

// threads looks into the descriptor tables that single threads may have of
// their own (clone(2) without CLONE_FILES, or a leader that has ended), where a
// process's own folder does not show them.
func (w *walk) threads(root string) {
	each(root, func(name string) bool {
		pid, err := strconv.Atoi(name)
		tasks := root + "/" + name + "/task"
		if err != nil || alone(tasks) {
			return true
		}
		each(tasks, func(thread string) bool {
			if tid, err := strconv.Atoi(thread); err == nil && tid != pid && !sameFiles(pid, tid) {
				w.process(pid, tasks+"/"+thread)
			}
			return !w.Cut
		})
		return !w.Cut
	})
}

// alone tells whether a process has one thread: its folder has two links and
// one for each thread (fs/proc/base.c, proc_task_getattr).
func alone(tasks string) bool {
	var stat unix.Stat_t
	return unix.Stat(tasks, &stat) != nil || stat.Nlink <= 3
}

// sameFiles tells whether two threads share their descriptors (kcmp(2)). Where
// the kernel does not say, they do not.
func sameFiles(pid, tid int) bool {
	const files = 2 // KCMP_FILES
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pid), uintptr(tid), files, 0, 0, 0)
	return errno == 0 && order == 0
}

// inside notes the network namespace of a process.
func (w *walk) inside(pid int, folder string) {
	n, err := unix.Readlink(folder+"/ns/net", w.link)
	if err != nil || !strings.HasPrefix(string(w.link[:n]), "net:[") {
		return
	}
	if inode, ok := number(string(w.link[:n]), "net:["); ok {
		add(w.Inside, inode, pid)
	}
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
		inode, ok := number(target, "socket:[")
		if ok && w.wanted[inode] {
			add(w.Sockets, inode, pid)
		}
		if ok && w.xdp && family(folder+"/fd/"+fd) == "XDP" {
			add(w.XDP, inode, pid)
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
	}
}

// family is the name of a socket's protocol in the kernel (net/socket.c,
// system.sockprotoname; net/xdp/xsk.c names AF_XDP "XDP").
func family(path string) string {
	name := make([]byte, 32)
	n, err := unix.Getxattr(path, "system.sockprotoname", name)
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(name[:n])
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
