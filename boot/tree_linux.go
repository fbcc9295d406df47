package boot

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// DirTree is a directory tree that is read without leaving it: no symbolic
// link is followed, no mount point crossed, no device node opened. It
// implements fs.FS and fs.ReadLinkFS, but takes any name that the kernel
// takes, also such as are not UTF-8.
type DirTree struct{ dir *os.File }

var _ fs.ReadLinkFS = (*DirTree)(nil)

// OpenTree opens the tree below dir. It needs Linux 5.6 (openat2).
func OpenTree(dir string) (*DirTree, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	t := &DirTree{f}
	probe, err := t.openat2(".", unix.O_PATH)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("tree %s: openat2, which needs Linux 5.6: %w", dir, err)
	}
	return t, unix.Close(probe)
}

// Close closes the tree. Files that were opened stay open.
func (t *DirTree) Close() error { return t.dir.Close() }

// openat2 opens a name below the tree (Linux man page openat2(2)).
func (t *DirTree) openat2(name string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(int(t.dir.Fd()), name, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// Open opens a regular file or a directory. Anything else is an error, and is
// not opened: opening a device node can act on the device.
func (t *DirTree) Open(name string) (fs.File, error) {
	f, err := t.open(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return f, nil
}

func (t *DirTree) open(name string) (*os.File, error) {
	look, err := t.openat2(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer unix.Close(look)
	var before, after unix.Stat_t
	if err := unix.Fstat(look, &before); err != nil {
		return nil, err
	}
	if kind := before.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return nil, errRegular
	}
	fd, err := t.openat2(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	if err := unix.Fstat(fd, &after); err != nil || after.Ino != before.Ino || after.Dev != before.Dev {
		unix.Close(fd)
		return nil, fmt.Errorf("replaced while it was opened: %w", errChanged)
	}
	// By this name package os can look at entries whose type the directory does not tell.
	return os.NewFile(uintptr(fd), fmt.Sprintf("/proc/self/fd/%d", fd)), nil
}

// ReadLink returns the target of a symbolic link.
func (t *DirTree) ReadLink(name string) (string, error) {
	target, err := t.readLink(name)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return target, nil
}

func (t *DirTree) readLink(name string) (string, error) {
	// With O_PATH and O_NOFOLLOW the link itself is opened, if RESOLVE_NO_SYMLINKS
	// is given for all but the last part: so open the directory, then the link.
	dir, base := splitPath(name)
	parent, err := t.openat2(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", err
	}
	defer unix.Close(parent)
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(parent, base, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// Lstat describes the file or link of the given name.
func (t *DirTree) Lstat(name string) (fs.FileInfo, error) {
	dir, base := splitPath(name)
	parent, err := t.openat2(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	defer unix.Close(parent)
	return os.Lstat(fmt.Sprintf("/proc/self/fd/%d/%s", parent, base))
}

func splitPath(name string) (dir, base string) {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '/' {
			return name[:i], name[i+1:]
		}
	}
	return ".", name
}

// same tells whether two looks at one open file saw the same state of it.
func same(a, b fs.FileInfo) bool {
	if a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime()) || a.Mode() != b.Mode() {
		return false
	}
	x, ok := a.Sys().(*syscall.Stat_t)
	y, ok2 := b.Sys().(*syscall.Stat_t)
	return !ok || !ok2 || x.Ctim == y.Ctim
}
