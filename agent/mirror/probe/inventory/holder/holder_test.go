package holder

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// socketInode opens a socket and tells its inode.
func socketInode(t *testing.T) (fd int, inode uint64) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		t.Fatal(err)
	}
	return fd, stat.Ino
}

func TestTheHolderOfASocketIsFound(t *testing.T) {
	fd, inode := socketInode(t)
	h := Walk(context.Background(), "/proc", Want{Sockets: map[uint64]bool{inode: true}, Deep: false})
	if got := h.Sockets[inode]; !slices.Equal(got, []int{os.Getpid()}) || h.Cut {
		t.Errorf("held by %v, cut %v, want %d", got, h.Cut, os.Getpid())
	}
	p := Process("/proc", os.Getpid())
	if p.PID != os.Getpid() || !strings.HasPrefix(p.Exe, "/") || p.Comm == "" {
		t.Errorf("named %+v", p)
	}
	unix.Close(fd)
	if h := Walk(context.Background(), "/proc", Want{Sockets: map[uint64]bool{inode: true}, Deep: true}); len(h.Sockets) > 0 {
		t.Errorf("a closed socket is held by %v", h.Sockets)
	}
}

// A thread that has left the table of its process hides a socket from
// /proc/PID/fd, not from the watch.
func TestAThreadsOwnTableIsLookedInto(t *testing.T) {
	opened, end := make(chan uint64), make(chan struct{})
	defer close(end)
	var leave func()
	leave = func() {
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
		if unix.Gettid() == os.Getpid() {
			go leave() // on another thread, while this one is held: the first would change what /proc/PID/fd shows
			<-end
			runtime.UnlockOSThread()
			return
		}
		if err := unix.Unshare(unix.CLONE_FILES); err != nil {
			opened <- 0
			return
		}
		_, inode := socketInode(t)
		opened <- inode
		<-end
	}
	go leave()
	inode := <-opened
	if inode == 0 {
		t.Skip("needs unshare of files")
	}
	wanted := map[uint64]bool{inode: true}
	if h := Walk(context.Background(), "/proc", Want{Sockets: wanted, Deep: false}); len(h.Sockets) > 0 {
		t.Errorf("the process itself holds %v", h.Sockets)
	}
	h := Walk(context.Background(), "/proc", Want{Sockets: wanted, Deep: true})
	if !slices.Equal(h.Sockets[inode], []int{os.Getpid()}) || h.ByThread != 1 {
		t.Errorf("held by %v, by threads %d", h.Sockets, h.ByThread)
	}
}

func TestAWalkThatIsCutSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if h := Walk(ctx, "/proc", Want{Sockets: nil, Deep: true}); !h.Cut {
		t.Error("a walk without time is not cut")
	}
}

// A folder in the form of /proc whose links and files are hostile.
func TestHostileDescriptorsAreHarmless(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"7/fd", "7/fdinfo", "8", "self", "99999999999999999999/fd"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	links := map[string]string{"0": "socket:[12", "1": "socket:[-1]", "2": "socket:[18446744073709551616]", "3": "net:[x]", "4": "anon_inode:bpf-prog",
		"5": "socket:[12]", "7": strings.Repeat("a", 200), "8": "anon_inode:bpf_link", "9": "anon_inode:bpf-prog"}
	for fd, target := range links {
		if err := os.Symlink(target, filepath.Join(root, "7/fd", fd)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"fdinfo/4": "pos:\t0\nprog_id:\t42\n", "fdinfo/8": "link_id:\t99999999999\n",
		"comm": "evil\x1b[2J\nname\u202e\xff\n"} {
		if err := os.WriteFile(filepath.Join(root, "7", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h := Walk(context.Background(), root, Want{Sockets: map[uint64]bool{12: true, ^uint64(0): true}, Deep: true})
	if fmt.Sprint(h.Sockets, h.Programs, h.Links) != "map[12:[7]] map[42:[7]] map[]" {
		t.Errorf("found %v %v %v", h.Sockets, h.Programs, h.Links)
	}
	if comm := Process(root, 7).Comm; comm != "evil?[2J?name??" {
		t.Errorf("named %q", comm)
	}
}

func TestSocketsOfXDPAreFoundWithoutTheKernelsList(t *testing.T) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs AF_XDP: %v", err)
	}
	defer unix.Close(fd)
	plain, other := socketInode(t)
	defer unix.Close(plain)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		t.Fatal(err)
	}
	h := Walk(context.Background(), "/proc", Want{XDP: true})
	if !slices.Equal(h.XDP[stat.Ino], []int{os.Getpid()}) || h.XDP[other] != nil {
		t.Errorf("found %v, want %d", h.XDP, stat.Ino)
	}
	if h := Walk(context.Background(), "/proc", Want{}); len(h.XDP) > 0 {
		t.Errorf("found %v unasked", h.XDP)
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("waxseald", 32)
	f.Add("\x1b]0;title\a\n\u202e\u200b\xff", 5)
	f.Add("ääääääää", 3)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = min(max(limit, 0), 1000)
		clean := Printable(text, limit)
		if len(clean) > limit || !utf8.ValidString(clean) || strings.ContainsAny(clean, "\n\r\x1b\u202e\u200b") {
			t.Errorf("%q of at most %d became %q", text, limit, clean)
		}
	})
}

func BenchmarkWalk(b *testing.B) {
	for b.Loop() {
		Walk(context.Background(), "/proc", Want{Sockets: map[uint64]bool{1: true}, Deep: false})
	}
}
