//go:build inside

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxseal/hw/board"
	"waxseal/images"
	"waxseal/images/vm"
)

// A suite is the tests of one package that are run inside the router: on its
// kernel, with its modules and its tools.
type suite struct {
	name string // of the program in the router's /bin
	pkg  string
	args string // which tests, as the test program takes it
}

// compile builds the suite's test program, as static as the router's own.
func (s suite) compile(t *testing.T, out string) string {
	t.Helper()
	file := filepath.Join(out, s.name)
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-tags=grpcnotrace", "-o", file, s.pkg)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test -c %s: %v\n%s", s.pkg, err, msg)
	}
	return file
}

// attackTools are what the attacks need beside what every router has. The
// iptables programs find their extensions where XTABLES_LIBDIR says.
var attackTools = []string{
	"iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft", "ethtool", "bridge", "wg", "sh", "sysctl",
}

const xtables = "/usr/lib/x86_64-linux-gnu/xtables"

// addAttackTools adds them to the commands of a root file system.
func addAttackTools(t *testing.T, commands map[string]string) {
	t.Helper()
	for _, name := range attackTools {
		file, err := images.HostProgram(name)
		if err != nil {
			t.Skip(err)
		}
		commands[name] = file
	}
	extensions, err := filepath.Glob(xtables + "/lib*t*_*.so")
	if err != nil || len(extensions) == 0 {
		t.Skipf("no extensions of iptables in %s: run scripts/setup", xtables)
	}
	for _, file := range extensions {
		commands[filepath.Base(file)] = file
	}
}

// startSuites is what the router does at the end of its start: it runs the
// suites one after the other and says so.
func startSuites(suites []suite) string {
	var b strings.Builder
	b.WriteString("export XTABLES_LIBDIR=/bin\ncd /tmp\n")
	b.WriteString("all=\nfor m in /lib/modules/*/*.ko; do m=${m##*/}; all=\"$all ${m%.ko}\"; done\nmodprobe -a $all\n")
	for _, s := range suites {
		fmt.Fprintf(&b, "echo suite %[1]s begins\n/bin/%[1]s -test.v -test.timeout 20m %[2]s\necho suite %[1]s ended: $?\n", s.name, s.args)
	}
	return b.String()
}

// newRouterWith makes an image whose router runs the suites.
func newRouterWith(t *testing.T, suites []suite) string {
	t.Helper()
	for _, tool := range []string{"qemu-system-x86_64", "mcopy", "mksquashfs"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: run scripts/setup", tool)
		}
	}
	kernel, err := images.KernelDir()
	if err != nil {
		t.Skip(err)
	}
	dir := shortTemp(t)
	agent, commands, err := images.BuildPrograms(t.Context(), "../..", filepath.Join(dir, "programs"))
	if err != nil {
		t.Fatal(err)
	}
	addAttackTools(t, commands)
	for _, s := range suites {
		commands[s.name] = s.compile(t, dir)
	}
	commands["waxseald"] = agent // for tests of the tool by itself
	spec := images.Spec{Board: "qemu-amd64", Kernel: kernel, Agent: agent, Userland: commands}
	clean, out := filepath.Join(dir, "clean"), filepath.Join(dir, "image")
	if err := images.Build(t.Context(), spec, clean); err != nil {
		t.Fatal(err)
	}
	err = images.Edit(t.Context(), clean, out, board.Conf, "etc/rc.local", func(b []byte) ([]byte, error) {
		return append(b, startSuites(suites)...), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// runInside boots the router, lets it run the suites and reports each of their
// tests as one of this test.
func runInside(t *testing.T, suites []suite) {
	t.Helper()
	image := newRouterWith(t, suites)
	begin := time.Now()
	v, err := vm.Start(t.Context(), vm.Config{Dir: image, Direct: true, NoTPM: true, MemoryMiB: 768, Args: []string{"-smp", "2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Stop)
	for _, s := range suites {
		t.Run(s.name, func(t *testing.T) {
			site{}.await(t, v, "suite "+s.name+" ended:")
			t.Logf("%.0f s after power-on", time.Since(begin).Seconds())
			reportSuite(t, s, v.Output())
		})
	}
}

// reportSuite makes a test of each test that ran inside. The end of a suite that
// no test of it explains, as after a crash, is a failure of its own.
func reportSuite(t *testing.T, s suite, console string) {
	t.Helper()
	_, said, _ := strings.Cut(console, "suite "+s.name+" begins\r\n")
	said, code, _ := strings.Cut(said, "suite "+s.name+" ended: ")
	code, _, _ = strings.Cut(code, "\r")
	results := testResults(said)
	if len(results) == 0 || code != "0" {
		t.Errorf("the suite ended with exit code %s after %d tests; its last words:\n%s", code, len(results), said[max(0, len(said)-4000):])
	}
	for _, r := range results {
		t.Run(r.name, func(t *testing.T) {
			switch r.outcome {
			case "FAIL":
				t.Errorf("failed inside the router:\n%s", r.output)
			case "SKIP":
				if !strings.Contains(r.output, "TCX") {
					t.Errorf("skipped inside the router, which lacks nothing but TCX:\n%s", r.output)
				}
			default:
				t.Log(r.output)
			}
		})
	}
}
