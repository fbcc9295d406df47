package hook

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// mark is the name of our filters: "waxseal/PID/START", with "/qdisc" where the
// process also made the qdisc. A filter outlives the process that made it, and
// the mark tells a later one whether it may take it away.
type mark struct {
	pid   int
	start uint64 // of the process, in clock ticks since boot (proc_pid_stat(5), field 22)
	qdisc bool
}

const markPrefix = "waxseal/"

func ownMark() mark {
	start, _ := startOf(os.Getpid())
	return mark{pid: os.Getpid(), start: start}
}

func (m mark) on(madeQdisc bool) string {
	m.qdisc = madeQdisc
	return m.String()
}

func (m mark) String() string {
	s := fmt.Sprintf("%s%d/%d", markPrefix, m.pid, m.start)
	if m.qdisc {
		s += "/qdisc"
	}
	return s
}

// parseMark reads the name of a filter. ok: a watch made it.
func parseMark(name string) (m mark, ok bool) {
	rest, ours := strings.CutPrefix(name, markPrefix)
	fields := strings.Split(rest, "/")
	if !ours || len(fields) < 2 || len(fields) > 3 {
		return mark{}, false
	}
	pid, err := strconv.Atoi(fields[0])
	if err != nil {
		return mark{}, false
	}
	start, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return mark{}, false
	}
	m = mark{pid: pid, start: start, qdisc: len(fields) == 3 && fields[2] == "qdisc"}
	return m, m.String() == name
}

// alive tells whether the process that made the filter still runs.
func (m mark) alive() bool {
	start, ok := startOf(m.pid)
	return ok && start == m.start
}

// startOf reads when a process began. The name in the second field may hold
// spaces and brackets, so fields are counted after its end.
func startOf(pid int) (uint64, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	const index = 22 - 3 // the first field after the name is the third
	if len(fields) <= index {
		return 0, false
	}
	start, err := strconv.ParseUint(string(fields[index]), 10, 64)
	return start, err == nil
}
