package board

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// ErrNoPartition means that a volume is on no partition of the board's disk,
// or on more than one.
var ErrNoPartition = errors.New("not exactly one partition")

// Device returns the kernel's device of a volume, for example /dev/vda2. It is
// found by the partition's name in the kernel's own view of the disk, so that
// what is measured through it is what is mounted from it.
func (b Board) Device(volume string) (string, error) {
	name, err := b.Partition(volume)
	if err != nil {
		return "", err
	}
	if b.root == nil {
		return "", fmt.Errorf("board %s: not found on a router", b.Name)
	}
	disk := path.Join("sys/class/block", path.Base(b.Disk))
	entries, err := fs.ReadDir(b.root, disk)
	if err != nil {
		return "", fmt.Errorf("volume %s: disk %s: %w", volume, b.Disk, err)
	}
	var found []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), path.Base(b.Disk)) && partName(text(b.root, path.Join(disk, e.Name(), "uevent"))) == name {
			found = append(found, "/dev/"+e.Name())
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("volume %s: %w is named %q on %s: %q", volume, ErrNoPartition, name, b.Disk, found)
	}
	return found[0], nil
}

// partName returns the value of PARTNAME in a uevent file.
func partName(uevent string) string {
	for line := range strings.Lines(uevent) {
		if name, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "PARTNAME="); ok {
			return name
		}
	}
	return ""
}
