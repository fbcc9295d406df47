package hook

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"waxseal/agent/mirror"
)

// searchFor bounds the search for the process that holds a program.
const searchFor = 100 * time.Millisecond

// holder finds a process that has a descriptor of a BPF program, or of a link
// with it. The kernel does not tell who attached it: zero if nobody holds it
// any more, as is usual for programs that are pinned or were attached by tc or ip.
func holder(program, link uint32) mirror.Process {
	if program == 0 {
		return mirror.Process{}
	}
	end := time.Now().Add(searchFor)
	dirs, _ := filepath.Glob("/proc/[0-9]*/fd")
	for _, dir := range dirs {
		if time.Now().After(end) {
			break
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		if pid != os.Getpid() && holds(dir, program, link) {
			return process(pid)
		}
	}
	return mirror.Process{}
}

// holds looks through the descriptors of one process.
func holds(dir string, program, link uint32) bool {
	names, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range names {
		target, err := os.Readlink(filepath.Join(dir, fd.Name()))
		if err != nil || target != "anon_inode:bpf-prog" && target != "anon_inode:bpf_link" {
			continue
		}
		info, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "fdinfo", fd.Name()))
		if err == nil && refersTo(info, program, link) {
			return true
		}
	}
	return false
}

// refersTo reads an fdinfo of a program or link (kernel/bpf/syscall.c,
// bpf_prog_show_fdinfo and bpf_link_show_fdinfo).
func refersTo(fdinfo []byte, program, link uint32) bool {
	lines := bufio.NewScanner(bytes.NewReader(fdinfo))
	for lines.Scan() {
		key, value, _ := bytes.Cut(lines.Bytes(), []byte(":"))
		n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 32)
		if err != nil {
			continue
		}
		switch string(key) {
		case "prog_id":
			if uint32(n) == program {
				return true
			}
		case "link_id":
			if link != 0 && uint32(n) == link {
				return true
			}
		}
	}
	return false
}

func process(pid int) mirror.Process {
	dir := "/proc/" + strconv.Itoa(pid)
	comm, _ := os.ReadFile(dir + "/comm")
	exe, _ := os.Readlink(dir + "/exe")
	return mirror.Process{PID: pid, Comm: string(bytes.TrimSpace(comm)), Exe: exe}
}
