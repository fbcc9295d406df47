package boot_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"waxseal/boot"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, []byte(content), 0o644))
}

// measureTree measures items over the volume conf in dir.
func measureTree(t *testing.T, dir string, items ...string) *tape {
	t.Helper()
	tree, err := boot.OpenTree(dir)
	must(t, err)
	defer tree.Close()
	var got tape
	must(t, boot.Measure(t.Context(), policy(items...), router(map[string]fs.FS{"conf": tree}), &got))
	got.wantCaps(t, "phase/handoff/switch_root")
	return &got
}

const startupItem = `{"kind":"startup","volume":"conf","paths":["etc/rc.local"]}`

// faults of files (docs: what must be survived). Each makes etc/rc.local, or
// what is in its place, below a root beside which there is a file "outside".
var faults = map[string]struct {
	make func(t *testing.T, root string)
	want string // how the record's name ends
	file string // how the record's name ends where the item is a file and not text; empty if as want
	text string // content, if want is no mark
}{
	"plain": {
		make: func(t *testing.T, root string) { write(t, root+"/etc/rc.local", "exit 0\n") },
		want: "?c=text1", text: "exit 0\n",
	},
	"absent":           {make: func(*testing.T, string) {}, want: "!absent"},
	"directory absent": {make: func(t *testing.T, root string) { must(t, os.RemoveAll(root+"/etc")) }, want: "!absent"},
	"FIFO": {
		make: func(t *testing.T, root string) { must(t, unix.Mkfifo(root+"/etc/rc.local", 0o644)) },
		want: "!error",
	},
	"socket": {
		make: func(t *testing.T, root string) {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			must(t, err)
			defer unix.Close(fd)
			must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: root + "/etc/rc.local"}))
		},
		want: "!error",
	},
	"device node": {
		make: func(t *testing.T, root string) {
			if err := unix.Mknod(root+"/etc/rc.local", unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))); err != nil {
				t.Skipf("needs root: %v", err) // /dev/zero: without a check it has no end
			}
		},
		want: "!error",
	},
	"symbolic link": {
		make: func(t *testing.T, root string) { must(t, os.Symlink("rc.real", root+"/etc/rc.local")) },
		want: "?c=link1", text: "rc.real", file: "!error",
	},
	"symbolic link out of the root": {
		make: func(t *testing.T, root string) { must(t, os.Symlink("../../outside", root+"/etc/rc.local")) },
		want: "?c=link1", text: "../../outside", file: "!error",
	},
	"symbolic link to itself": {
		make: func(t *testing.T, root string) { must(t, os.Symlink("rc.local", root+"/etc/rc.local")) },
		want: "?c=link1", text: "rc.local", file: "!error",
	},
	"directory is a symbolic link": {
		make: func(t *testing.T, root string) {
			write(t, root+"/real/rc.local", "exit 0\n")
			must(t, os.Remove(root+"/etc"))
			must(t, os.Symlink("real", root+"/etc"))
		},
		want: "!error",
	},
	"directory is a link out of the root": {
		make: func(t *testing.T, root string) {
			must(t, os.Remove(root+"/etc"))
			must(t, os.Symlink("/etc", root+"/etc"))
		},
		want: "!error",
	},
	"directory is a loop": {
		make: func(t *testing.T, root string) {
			must(t, os.Remove(root+"/etc"))
			must(t, os.Symlink("etc", root+"/etc"))
		},
		want: "!error",
	},
	"file in place of the directory": {
		make: func(t *testing.T, root string) {
			must(t, os.Remove(root+"/etc"))
			write(t, root+"/etc", "")
		},
		want: "!error",
	},
	"directory in place of the file": {
		make: func(t *testing.T, root string) { must(t, os.Mkdir(root+"/etc/rc.local", 0o755)) },
		want: "!error",
	},
	"empty": {
		make: func(t *testing.T, root string) { write(t, root+"/etc/rc.local", "") },
		want: "?c=text1", text: "",
	},
	"4 GiB sparse": {
		make: func(t *testing.T, root string) {
			write(t, root+"/etc/rc.local", "")
			must(t, os.Truncate(root+"/etc/rc.local", 4<<30))
		},
		want: "!error",
	},
	"CRLF and byte order mark": {
		make: func(t *testing.T, root string) { write(t, root+"/etc/rc.local", "\xef\xbb\xbfexit 0\r\n") },
		want: "?c=text1", text: "exit 0\n",
	},
	"not UTF-8": {
		make: func(t *testing.T, root string) { write(t, root+"/etc/rc.local", "\xff\xfe\n") },
		want: "?c=raw", text: "\xff\xfe\n",
	},
}

func TestFaultsOfFilesAreRecorded(t *testing.T) {
	for name, c := range faults {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			must(t, os.MkdirAll(root+"/etc", 0o755))
			write(t, root+"/../outside", "root:secret\n")
			c.make(t, root)
			got := measureTree(t, root, startupItem).records[1]
			if !strings.HasPrefix(got.Name, "startup/conf/etc/rc.local") || !strings.HasSuffix(got.Name, c.want) {
				t.Errorf("record %s: want …%s", got.Name, c.want)
			}
			if !strings.HasPrefix(c.want, "!") && got.Content != sha256.Sum256([]byte(c.text)) {
				t.Errorf("content is not that of %q", c.text)
			}
			want := c.file
			if want == "" && strings.HasPrefix(c.want, "!") {
				want = c.want
			}
			file := measureTree(t, root, `{"kind":"file","class":"bootloader","volume":"conf","path":"etc/rc.local"}`).records[1]
			if file.Name != "bootloader/conf/etc/rc.local"+want && name != "4 GiB sparse" {
				t.Errorf("record %s: want …%s", file.Name, want)
			}
		})
	}
}

func TestFileWithoutPermissionIsAnErrorRecord(t *testing.T) {
	var got tape
	src := router(map[string]fs.FS{"conf": forbidden{}})
	must(t, boot.Measure(t.Context(), policy(`{"kind":"startup","volume":"conf","paths":["etc/rc.local","etc/cron*"]}`), src, &got))
	want := []string{"startup/conf/@list?c=list1!error", "startup/conf/etc/rc.local?c=text1!error"}
	if ns := got.names()[1:]; fmt.Sprint(ns) != fmt.Sprint(want) {
		t.Errorf("records %v: want %v", ns, want)
	}
}

type forbidden struct{}

func (forbidden) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

func TestOddNamesAreRecordedEachAsItsOwn(t *testing.T) {
	root := t.TempDir()
	odd := []string{"\xff\xfe", "line\nbreak", "@list", "x!absent", "x?c=text1", strings.Repeat("n", 255), strings.Repeat("\xff", 255), "blank name", "plain"}
	for _, n := range odd {
		write(t, root+"/etc/cron.d/"+n, n)
	}
	got := measureTree(t, root, `{"kind":"startup","volume":"conf","paths":["etc/cron.d/*"],"canon":"raw"}`)
	seen := map[[sha256.Size]byte]string{}
	for _, r := range got.records[1:] {
		seen[r.Content] = r.Name
	}
	for _, n := range odd {
		name, ok := seen[sha256.Sum256([]byte(n))]
		if !ok {
			t.Errorf("no record of %q", n)
			continue
		}
		item := strings.TrimSuffix(strings.TrimPrefix(name, "startup/conf/"), "?c=raw")
		if p, err := boot.Unescape(item); err == nil && p != "etc/cron.d/"+n {
			t.Errorf("%q is recorded as %s, which reads %q", n, name, p)
		} else if _, kept := got.kept[sha256.Sum256([]byte("etc/cron.d/"+n))]; err != nil && !kept {
			t.Errorf("%q is recorded as %s, and its path is not kept", n, name)
		}
	}
}

// No pattern follows a link; a link is itself something that takes effect.
func TestPatternRecordsLinksAndDoesNotFollowThem(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	must(t, os.Mkdir(root, 0o755))
	write(t, root+"/../outside/evil.service", "[Service]\n")
	write(t, root+"/etc/systemd/system/a.service", "[Service]\n")
	must(t, os.MkdirAll(root+"/etc/systemd/system/b.wants", 0o755))
	must(t, os.Symlink("../a.service", root+"/etc/systemd/system/b.wants/a.service"))
	must(t, os.Symlink("../../../../outside", root+"/etc/systemd/system/c.wants"))
	must(t, os.Symlink(".", root+"/etc/systemd/system/loop"))
	got := measureTree(t, root, `{"kind":"startup","volume":"conf","paths":["etc/systemd/system/**"]}`)
	want := []string{
		"startup/conf/etc/systemd/system/a.service?c=text1",
		"startup/conf/etc/systemd/system/b.wants/a.service?c=link1",
		"startup/conf/etc/systemd/system/c.wants?c=link1",
		"startup/conf/etc/systemd/system/loop?c=link1",
	}
	if ns := got.names()[1:]; fmt.Sprint(ns) != fmt.Sprint(want) {
		t.Errorf("records %v: want %v", ns, want)
	}
	if c, _ := got.content(want[2]); c != sha256.Sum256([]byte("../../../../outside")) {
		t.Error("content is not the target of the link")
	}
}

func TestTooManyFilesAreOneErrorRecordInBoundedMemory(t *testing.T) {
	root := t.TempDir()
	must(t, os.Mkdir(root+"/many", 0o755))
	dir, err := unix.Open(root+"/many", unix.O_PATH, 0)
	must(t, err)
	defer unix.Close(dir)
	for i := range 50_000 {
		must(t, unix.Mknodat(dir, fmt.Sprint("file", i), unix.S_IFREG|0o644, 0))
	}
	write(t, root+"/etc/rc.local", "exit 0\n")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got := measureTree(t, root, `{"kind":"startup","volume":"conf","paths":["etc/rc.local","many/**"],"max_entries":1000}`)
	runtime.ReadMemStats(&after)
	want := []string{"startup/conf/@list?c=list1!error", "startup/conf/etc/rc.local?c=text1"}
	if ns := got.names()[1:]; fmt.Sprint(ns) != fmt.Sprint(want) {
		t.Errorf("records %v: want %v", ns, want)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("allocated %d bytes for 1,000 of 50,000 entries", grown)
	}
}

// changing calls change after the first read of any file.
type changing struct {
	*boot.DirTree
	change func()
}

func (c changing) Open(name string) (fs.File, error) {
	f, err := c.DirTree.Open(name)
	if err != nil {
		return nil, err
	}
	return &changingFile{f, c.change}, nil
}

type changingFile struct {
	fs.File
	change func()
}

func (f *changingFile) Read(b []byte) (int, error) {
	n, err := f.File.Read(b[:min(len(b), 4)])
	if f.change != nil {
		f.change()
		f.change = nil
	}
	return n, err
}

func TestFileThatChangesWhileItIsReadIsAnErrorRecord(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, file string)
		want   string
	}{
		"appended": {func(t *testing.T, file string) {
			f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
			must(t, err)
			defer f.Close()
			_, err = f.WriteString("more")
			must(t, err)
		}, "!error"},
		"cut":       {func(t *testing.T, file string) { must(t, os.Truncate(file, 5)) }, "!error"},
		"rewritten": {func(t *testing.T, file string) { must(t, os.WriteFile(file, []byte("evil 00\n"), 0o644)) }, "!error"},
		"mode":      {func(t *testing.T, file string) { must(t, os.Chmod(file, 0o755)) }, "!error"},
		// Another file in its place is not what was opened, and is not what was measured.
		"replaced": {func(t *testing.T, file string) {
			write(t, file+".new", "evil 00\n")
			must(t, os.Rename(file+".new", file))
		}, "!error"},
		"another file": {func(t *testing.T, file string) { write(t, file+".other", "x") }, "?c=text1"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			file := root + "/etc/rc.local"
			write(t, file, "exit 00\n")
			tree, err := boot.OpenTree(root)
			must(t, err)
			defer tree.Close()
			var got tape
			src := router(map[string]fs.FS{"conf": changing{tree, func() { c.change(t, file) }}})
			must(t, boot.Measure(t.Context(), policy(startupItem), src, &got))
			if n := got.names()[1]; !strings.HasSuffix(n, c.want) {
				t.Errorf("record %s: want …%s", n, c.want)
			}
		})
	}
}

func TestMountOverADirectoryIsAnErrorRecord(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/etc/rc.local", "exit 0\n")
	done := make(chan struct{})
	var skip error
	go func() { // the thread keeps its mounts and ends with the goroutine
		defer close(done)
		runtime.LockOSThread()
		if skip = unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); skip != nil {
			return
		}
		if skip = unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); skip != nil {
			return
		}
		if skip = unix.Mount("none", root+"/etc", "tmpfs", 0, ""); skip != nil {
			return
		}
		tree, err := boot.OpenTree(root)
		if err != nil {
			t.Error(err)
			return
		}
		defer tree.Close()
		if _, err := tree.Open("etc/rc.local"); !errors.Is(err, unix.EXDEV) {
			t.Errorf("a file below a mount: error %v", err)
		}
	}()
	<-done
	if skip != nil {
		t.Skipf("needs root: %v", skip)
	}
}

// Opening can already act: a watchdog starts, a FIFO wakes its other end.
func TestTreeDoesNotOpenWhatIsNoFile(t *testing.T) {
	root := t.TempDir()
	must(t, unix.Mkfifo(root+"/fifo", 0o644))
	write(t, root+"/file", "")
	tree, err := boot.OpenTree(root)
	must(t, err)
	defer tree.Close()
	if f, err := tree.Open("fifo"); err == nil {
		f.Close()
		t.Error("opened a FIFO")
	}
	for _, name := range []string{"file", "."} {
		f, err := tree.Open(name)
		must(t, err)
		must(t, f.Close())
	}
}
