package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"waxseal/agent/mirror"
)

// maxFdinfo bounds what is read of an open file's description, bytes.
const maxFdinfo = 1 << 12

// holderOf finds the process that has a tun, tap or macvtap device open: it
// reads and writes what goes through it. Zero: nobody has, or not at this
// moment.
func holderOf(l link) mirror.Process {
	if l.kind != "tun" && l.kind != "macvtap" && l.kind != "ipvtap" {
		return mirror.Process{}
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*/fd")
	for _, dir := range dirs {
		fds, _ := os.ReadDir(dir) // it ended: nothing
		for _, fd := range fds {
			if opens(filepath.Dir(dir), fd.Name(), l) {
				return describe(filepath.Dir(dir))
			}
		}
	}
	return mirror.Process{}
}

// opens tells whether an open file is the device: /dev/net/tun, whose fdinfo
// names the device (drivers/net/tun.c, tun_chr_show_fdinfo), or /dev/tapN with
// the number of the device (drivers/net/tap.c).
func opens(process, fd string, l link) bool {
	target, err := os.Readlink(process + "/fd/" + fd)
	if err != nil {
		return false
	}
	if l.kind != "tun" {
		return target == fmt.Sprintf("/dev/tap%d", l.index)
	}
	if target != "/dev/net/tun" {
		return false
	}
	info, err := os.ReadFile(process + "/fdinfo/" + fd)
	return err == nil && len(info) < maxFdinfo && strings.Contains(string(info)+"\n", "iff:\t"+l.name+"\n")
}

// describe names a process by its folder in /proc.
func describe(dir string) (p mirror.Process) {
	if _, err := fmt.Sscanf(filepath.Base(dir), "%d", &p.PID); err != nil {
		return mirror.Process{}
	}
	if comm, err := os.ReadFile(dir + "/comm"); err == nil {
		p.Comm = strings.TrimSuffix(string(comm), "\n")
	}
	p.Exe, _ = os.Readlink(dir + "/exe")
	return p
}
