package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
}

// named makes a namespace with a name.
func named(t *testing.T, suffix string) string {
	t.Helper()
	needRoot(t)
	name := fmt.Sprintf("wxc%d-%s", os.Getpid(), suffix)
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("namespace %s: %v: %s", name, err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	return name
}

func find(t *testing.T, depth Depth) []Namespace {
	t.Helper()
	found, err := Find(depth, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return found.Namespaces
}

func holds(list []Namespace, inode uint64) bool {
	return slices.ContainsFunc(list, func(n Namespace) bool { return n.Inode == inode })
}

func TestANamedNamespaceIsFoundAndEntered(t *testing.T) {
	name := named(t, "a")
	list := find(t, Names)
	i := slices.IndexFunc(list, func(n Namespace) bool { return n.Name == name })
	if i < 0 {
		t.Fatalf("%s is not in %v", name, list)
	}
	before, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	err = list[i].Do(func() error {
		inside, err := Current()
		if inside != list[i] {
			t.Errorf("inside it is %v, want %v", inside, list[i])
		}
		return err
	})
	after, _ := Current()
	if err != nil || after.Inode != before.Inode {
		t.Errorf("error %v; the test was in %v and is in %v", err, before, after)
	}
	if leader, _ := inodeOfLink("/proc/self/ns/net"); leader == list[i].Inode {
		t.Error("the first thread of the process was moved")
	}
}

func TestARemovedNamespaceIsGone(t *testing.T) {
	name := named(t, "gone")
	list := find(t, Names)
	i := slices.IndexFunc(list, func(n Namespace) bool { return n.Name == name })
	if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if holds(find(t, Everything), list[i].Inode) {
		t.Error("a removed namespace is still found: something of ours keeps it alive")
	}
	if err := list[i].Do(func() error { t.Error("entered"); return nil }); !errors.Is(err, ErrGone) {
		t.Errorf("error %v, want ErrGone", err)
	}
}

func TestANamespaceOfOneThreadIsFound(t *testing.T) {
	needRoot(t)
	made, end := make(chan uint64), make(chan struct{})
	defer close(end)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- 0
			return
		}
		here, _ := Current()
		made <- here.Inode
		<-end
	}()
	inode := <-made
	if inode == 0 {
		t.Skip("needs network namespaces")
	}
	if !holds(find(t, Everything), inode) {
		t.Error("a thread's own namespace is not found")
	}
}

func TestANamespaceOfAnOpenFileIsFound(t *testing.T) {
	name := named(t, "file")
	f, err := os.Open(namesAt + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	list := find(t, Everything)
	i := slices.IndexFunc(list, func(n Namespace) bool { return n.Inode == stat.Ino })
	if i < 0 {
		t.Fatal("a namespace that only an open file keeps is not found")
	}
	if err := list[i].Do(func() error { return nil }); err != nil {
		t.Errorf("it cannot be entered: %v", err)
	}
}

func TestTheLimitIsKeptAndTold(t *testing.T) {
	named(t, "l1")
	named(t, "l2")
	found, err := Find(Names, 1)
	if err != nil || len(found.Namespaces) != 1 || found.Left < 1 {
		t.Errorf("%d namespaces and %d left, %v: want 1 and the rest", len(found.Namespaces), found.Left, err)
	}
}

func TestMountsOfNamespacesAreRead(t *testing.T) {
	text := `36 35 0:4 net:[4026532300] /run/netns/a\040b rw shared:1 - nsfs nsfs rw
37 35 0:4 mnt:[4026532301] /run/m rw - nsfs nsfs rw
38 35 0:4 net:[x] /run/n rw - nsfs nsfs rw
39 35 0:5 net:[4026532302] /run/o rw - tmpfs nsfs rw
40 35`
	got := mountedNamespaces([]byte(text))
	if len(got) != 1 || got[0].Inode != 4026532300 || got[0].path != "/run/netns/a b" {
		t.Errorf("read %+v", got)
	}
}

func FuzzMounts(f *testing.F) {
	f.Add([]byte("36 35 0:4 net:[4026532300] /run/netns/a\\040b rw - nsfs nsfs rw\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, n := range mountedNamespaces(text) {
			if n.path == "" {
				t.Error("a mount without a place")
			}
		}
	})
}

func BenchmarkFind(b *testing.B) {
	for name, depth := range map[string]Depth{"names": Names, "processes": Processes, "everything": Everything} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Find(depth, 1<<10); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
