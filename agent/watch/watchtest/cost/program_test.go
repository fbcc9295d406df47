package cost

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/watch/watchtest"
)

var waxseald = flag.String("waxseald", "", "the router's program")

// newLab returns a lab for as long as the benchmark runs.
func newLab(b *testing.B) *watchtest.Lab {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("needs root to make network namespaces")
	}
	if *waxseald == "" {
		b.Skip("needs -waxseald FILE: scripts/build makes it")
	}
	lab, err := watchtest.Open(watchtest.Routed)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := lab.Close(); err != nil {
			b.Error(err)
		}
	})
	return lab
}

// A tool is "waxseald watch" that runs in a lab's router.
type tool struct {
	cmd       *exec.Cmd
	incidents chan seen // closed when the tool has ended
	stderr    bytes.Buffer
}

// seen is an incident and when its line was read.
type seen struct {
	mirror.Incident
	at time.Time
}

// start starts the tool and waits until every hook is in place.
func start(b *testing.B, lab *watchtest.Lab, args ...string) *tool {
	b.Helper()
	file, err := filepath.Abs(*waxseald)
	if err != nil {
		b.Fatal(err)
	}
	t := &tool{incidents: make(chan seen, 10000)}
	t.cmd = exec.Command(file, append([]string{"watch", "--ports", "r0,r1,r2"}, args...)...)
	t.cmd.Stderr = &t.stderr
	out, err := t.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := lab.Router.Start(t.cmd); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() || !bytes.Contains(lines.Bytes(), []byte(`"capabilities"`)) {
		t.cmd.Process.Kill()
		t.cmd.Wait()
		b.Fatalf("the tool begins with %q: %s", lines.Text(), &t.stderr)
	}
	go t.read(lines)
	return t
}

func (t *tool) read(lines *bufio.Scanner) {
	defer close(t.incidents)
	for lines.Scan() {
		s := seen{at: time.Now()}
		if json.Unmarshal(lines.Bytes(), &s.Incident) == nil {
			t.incidents <- s
		}
	}
}

// stop ends the tool and waits until it has gone.
func (t *tool) stop(b *testing.B) {
	b.Helper()
	if err := t.cmd.Process.Signal(unix.SIGTERM); err != nil {
		b.Fatal(err)
	}
	for range t.incidents {
	}
	if err := t.cmd.Wait(); err != nil {
		b.Fatalf("the tool: %v: %s", err, &t.stderr)
	}
}

// cpu is the time that the tool has used (proc_pid_stat(5): utime and stime,
// in ticks of 10 ms).
func (t *tool) cpu(b *testing.B) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", t.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// mapBytes is the kernel memory of the tool's BPF maps (proc_pid_fdinfo(5)).
func (t *tool) mapBytes(b *testing.B) (total int) {
	b.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", t.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	counted := map[string]bool{}
	for _, file := range files {
		info, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(info, []byte("map_type:")) {
			continue // closed meanwhile, or no map
		}
		if id := field(info, "map_id:"); !counted[id] {
			counted[id] = true
			n, _ := strconv.Atoi(field(info, "memlock:"))
			total += n
		}
	}
	return total
}

func field(info []byte, name string) string {
	_, after, _ := strings.Cut(string(info), name)
	line, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(line)
}

// rss is the tool's resident memory in KiB (proc_pid_status(5)).
func (t *tool) rss(b *testing.B) int {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", t.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	n, _ := strconv.Atoi(strings.TrimSuffix(field(status, "VmRSS:"), " kB"))
	return n
}

// quantile returns the value below which that part of values lies.
func quantile(values []float64, part float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(part*float64(len(sorted))))]
}
