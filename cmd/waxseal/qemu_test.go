package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"waxseal/hw/board"
	"waxseal/hw/tpm"
	"waxseal/images"
	"waxseal/images/factory"
	"waxseal/images/vm"
	"waxseal/measure/evidence"

	"github.com/go-json-experiment/json"
)

// A site is a vendor, an owner, one image and one unit.
type site struct {
	dir       string
	clean     string // the image, from the golden boot on enrolled
	reference string // of the start that is being tested
}

const labSerial = "WX-0007"

func (l site) path(name string) string { return filepath.Join(l.dir, name) }

// newSite makes the site; all that follows uses it and leaves it as it is.
func newSite(t *testing.T) site {
	t.Helper()
	for _, tool := range []string{"qemu-system-x86_64", "swtpm", "mcopy", "mksquashfs"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: run scripts/setup", tool)
		}
	}
	kernel, err := images.KernelDir()
	if err != nil {
		t.Skip(err)
	}
	l := site{dir: shortTemp(t)}
	l.clean = l.path("clean")
	l.cli(t, exitOK, "owner", "init", l.path("owner"))
	l.authoriseSession(t)
	l.provision(t)
	agent, commands, err := images.BuildPrograms(t.Context(), "../..", l.path("programs"))
	if err != nil {
		t.Fatal(err)
	}
	spec := images.Spec{
		Board: "qemu-amd64", Kernel: kernel, Agent: agent, Userland: commands, OwnerCA: l.path("owner/owner-ca.pem"),
		Approvers: l.path("owner/approvers.json"), Mirrors: l.path("mirrors.json"),
	}
	if err := images.Build(t.Context(), spec, l.clean); err != nil {
		t.Fatal(err)
	}
	return l
}

// shortTemp is t.TempDir with a name that leaves room for a socket's path.
func shortTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "waxseal-lab-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (l site) provision(t *testing.T) {
	t.Helper()
	ca, err := factory.NewCA(l.path("vendor"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	err = ca.WithTPM(t.Context(), l.path("unit/tpm"), labSerial, func(dev *tpm.Device) error {
		_, err := factory.Provision(t.Context(), dev, ca, labSerial)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// cli runs the operator's tool, demands its exit code and returns its output.
func (l site) cli(t *testing.T, code int, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if got := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr); got != code {
		t.Fatalf("waxseal %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, &stdout, &stderr)
	}
	return stdout.String()
}

// boot starts the unit on an image and waits for its agent and its network.
func (l site) boot(t *testing.T, c vm.Config) *vm.VM {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	if c.State == "" {
		c.State = l.path("unit")
	}
	c.Serial = labSerial
	v, err := vm.Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Stop)
	l.await(t, v, "agent serves")
	l.await(t, v, "lab router is up") // its network too
	return v
}

func (l site) await(t *testing.T, v *vm.VM, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := v.WaitFor(ctx, text); err != nil {
		t.Fatal(err)
	}
}

type verdict struct {
	Result     string   `json:"result"`
	Assurance  string   `json:"assurance"`
	Reasons    []string `json:"reasons"`
	Components []struct {
		Name    string `json:"name"`
		State   string `json:"state"`
		Follows string `json:"follows"`
		Note    string `json:"note"`
		Diff    []struct {
			Text string `json:"text"`
			Op   string `json:"op"`
		} `json:"diff"`
	} `json:"components"`
}

// attest challenges the router and returns the verdict.
func (l site) attest(t *testing.T, v *vm.VM, code int, args ...string) verdict {
	t.Helper()
	args = append([]string{"attest", v.Address, "--owner", l.path("owner"), "--serial", labSerial, "-o", "json"}, args...)
	if l.reference != "" {
		args = append(args, "--reference", l.reference)
	}
	out := l.cli(t, code, args...)
	var got verdict
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("verdict: %v\n%s", err, out)
	}
	return got
}

// culprits returns the components that are neither good nor following from another.
func (v verdict) culprits() []string {
	var names []string
	for _, c := range v.Components {
		if !slices.Contains([]string{"good", "informational", "follows", "not covered", "noticed", "past"}, c.State) {
			names = append(names, c.Name)
		}
	}
	return names
}

func (l *site) predict(t *testing.T, o images.PredictOptions) {
	t.Helper()
	v, err := images.Predict(t.Context(), l.clean, o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	l.reference = l.path("reference.json")
	if err := os.WriteFile(l.reference, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (l site) enroll(t *testing.T, v *vm.VM) {
	t.Helper()
	l.cli(t, exitOK, "enroll", v.Address, "--owner", l.path("owner"), "--vendor-ca", l.path("vendor/vendor-ca.pem"), "--serial", labSerial)
}

// The order of these tests is the life of a router: golden boot, clean boots,
// attacks. Each boot is of a copy, the unit is always the same.
func TestRouterInQEMU(t *testing.T) {
	l := newSite(t)
	t.Run("golden boot under firmware is enrolled and recorded", func(t *testing.T) { testGoldenBoot(t, l) })
	if t.Failed() {
		t.Fatal("without an enrolled router the other tests mean nothing")
	}
	t.Run("under firmware", func(t *testing.T) { testFirmwareStart(t, l) })
	t.Run("direct", func(t *testing.T) { testDirectStart(t, l) })
	t.Run("reference clients", func(t *testing.T) { testReferenceClients(t, l) })
}

func testGoldenBoot(t *testing.T, l site) {
	v := l.boot(t, vm.Config{Dir: l.clean})
	l.attestRefused(t, v)
	l.enroll(t, v)
	golden := l.path("golden.json")
	if got := l.attest(t, v, exitError, "--save", golden); got.Result != "none" {
		t.Errorf("result without a reference is %q, want none", got.Result)
	}
	v.Stop()
	if err := images.Learn(l.clean, l.verified(t, golden).Firmware()); err != nil {
		t.Fatal(err)
	}
}

// attestRefused shows that a router that no owner has enrolled does not attest.
func (l site) attestRefused(t *testing.T, v *vm.VM) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"attest", v.Address, "--owner", l.path("owner"), "--serial", labSerial}, strings.NewReader(""), &stdout, &stderr)
	if code == exitOK || strings.Contains(stdout.String(), "affirming") {
		t.Errorf("a router that is not enrolled gave exit code %d:\n%s%s", code, &stdout, &stderr)
	}
}

func (l site) verified(t *testing.T, file string) evidence.Verified {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := evidence.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := os.ReadFile(l.path("owner/owner-ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := evidence.ParsePEM(string(owner))
	if err != nil {
		t.Fatal(err)
	}
	got, err := evidence.Verify(ev, ev.Offline(), evidence.Trust{Roots: []*x509.Certificate{root}, Now: ev.Received})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func testFirmwareStart(t *testing.T, l site) {
	l.predict(t, images.PredictOptions{Version: "test"})
	t.Run("clean is affirming with assurance firmware", func(t *testing.T) {
		v := l.boot(t, vm.Config{Dir: l.clean})
		got := l.attest(t, v, exitOK)
		if got.Result != "affirming" || got.Assurance != "firmware" {
			t.Errorf("verdict is %s with assurance %s (%v), want affirming with firmware", got.Result, got.Assurance, got.Reasons)
		}
	})
	t.Run("changed kernel is named by firmware and agent", func(t *testing.T) {
		got := l.attack(t, "kernel", false)
		if got.Assurance != "self" {
			t.Errorf("assurance is %q although the firmware's log names an unknown kernel, want self", got.Assurance)
		}
	})
}

func testDirectStart(t *testing.T, l site) {
	l.predict(t, images.PredictOptions{Direct: true})
	t.Run("clean is affirming with assurance self", func(t *testing.T) {
		restconf := freePort(t)
		v := l.boot(t, vm.Config{Dir: l.clean, Direct: true, RESTCONF: restconf})
		if got := l.attest(t, v, exitOK); got.Result != "affirming" || got.Assurance != "self" {
			t.Errorf("verdict is %s with assurance %s, want affirming with self", got.Result, got.Assurance)
		}
		l.asked(t, v, restconf)
	})
	t.Run("mirror while it runs", func(t *testing.T) { testMirrorWhileRunning(t, l) })
	for _, c := range images.Tamperings {
		t.Run("changed "+c.Name, func(t *testing.T) { l.attack(t, c.Name, true) })
	}
	t.Run("agent that is killed goes on from its journal", func(t *testing.T) { testKilledAgent(t, l) })
	t.Run("no TPM", func(t *testing.T) { testNoTPM(t, l) })
	t.Run("TPM without its EK is closed", func(t *testing.T) { testNoRecorder(t, l) })
	t.Run("boot budget used up", func(t *testing.T) { testBudget(t, l) })
	t.Run("unreadable flash", func(t *testing.T) { testUnreadableFlash(t, l) })
	t.Run("full disk", func(t *testing.T) { testFullDisk(t, l) })
}

// attack boots the image with one change and demands that exactly this one is named.
func (l site) attack(t *testing.T, name string, direct bool) verdict {
	t.Helper()
	out := filepath.Join(shortTemp(t), "changed")
	c, err := images.Tamper(t.Context(), l.clean, name, out)
	if err != nil {
		t.Fatal(err)
	}
	v := l.boot(t, vm.Config{Dir: out, Direct: direct})
	got := l.attest(t, v, exitFailed)
	if got.Result != "contraindicated" {
		t.Errorf("result is %q, want contraindicated", got.Result)
	}
	if culprits := got.culprits(); !slices.Equal(culprits, []string{c.Culprit}) {
		t.Errorf("culprits are %q, want %s alone", culprits, c.Culprit)
	}
	l.forwards(t, v)
	return got
}

// forwards demands that the router's own userland came up.
func (l site) forwards(t *testing.T, v *vm.VM) {
	t.Helper()
	l.await(t, v, "forwarding: 1")
}

func (l site) edit(t *testing.T, volume, path string, edit func([]byte) ([]byte, error)) string {
	t.Helper()
	out := filepath.Join(shortTemp(t), "edited")
	if err := images.Edit(t.Context(), l.clean, out, volume, path, edit); err != nil {
		t.Fatal(err)
	}
	return out
}

func testKilledAgent(t *testing.T, l site) {
	const script = `
for p in /proc/[0-9]*; do
  line="$(cat $p/cmdline)"
  case "$line" in waxseald*serve*) sleep 2; kill -9 ${p#/proc/}; echo killed the agent;; esac
done
`
	image := l.edit(t, board.Conf, "etc/rc.local", func(b []byte) ([]byte, error) { return append(b, script...), nil })
	v := l.boot(t, vm.Config{Dir: image, Direct: true})
	l.await(t, v, "agent ended")
	for deadline := time.Now().Add(time.Minute); strings.Count(v.Output(), "agent serves") < 2; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the agent was not started again:\n%s", v.Output())
		}
	}
	got := l.attest(t, v, exitFailed)
	if want := []string{"startup/conf/etc/rc.local?c=text1"}; !slices.Equal(got.culprits(), want) {
		t.Errorf("culprits after a restart of the agent are %q, want %q", got.culprits(), want)
	}
}

func testNoTPM(t *testing.T, l site) {
	v := l.boot(t, vm.Config{Dir: l.clean, Direct: true, NoTPM: true})
	l.forwards(t, v)
	got := l.attest(t, v, exitFailed)
	if got.Result != "none" || !strings.Contains(strings.Join(got.Reasons, "\n"), "no TPM") {
		t.Errorf("verdict of a router without a TPM is %s because %q, want none because of no TPM", got.Result, got.Reasons)
	}
}

// A TPM in which nothing can be recorded, as after an eviction of its EK, must
// not be left open: root could extend a good boot into it later.
func testNoRecorder(t *testing.T, l site) {
	state := filepath.Join(shortTemp(t), "bare")
	if err := factory.WithTPM(t.Context(), filepath.Join(state, "tpm"), func(*tpm.Device) error { return nil }); err != nil {
		t.Fatal(err)
	}
	const script = "\nfor i in 12 13 14; do echo PCR $i is $(cat /sys/class/tpm/tpm0/pcr-sha256/$i); done\necho PCRs shown\n"
	image := l.edit(t, board.Conf, "etc/rc.local", func(b []byte) ([]byte, error) { return append(b, script...), nil })
	v := l.boot(t, vm.Config{Dir: image, Direct: true, State: state})
	l.forwards(t, v)
	l.await(t, v, "PCRs shown")
	for _, pcr := range []string{"12", "13", "14"} {
		_, after, found := strings.Cut(v.Output(), "PCR "+pcr+" is ")
		if !found || strings.HasPrefix(after, strings.Repeat("0", 64)) {
			t.Errorf("PCR %s is open after a boot that was not recorded", pcr)
		}
	}
	if got := l.attest(t, v, exitFailed); got.Result != "none" {
		t.Errorf("verdict is %s, want none", got.Result)
	}
}

func testBudget(t *testing.T, l site) {
	image := l.edit(t, board.ESP, "waxseal/policy.json", func(b []byte) ([]byte, error) {
		return bytes.ReplaceAll(b, []byte(`"60s"`), []byte(`"1ms"`)), nil
	})
	v := l.boot(t, vm.Config{Dir: image, Direct: true})
	l.forwards(t, v)
	got := l.attest(t, v, exitFailed)
	if reasons := strings.Join(got.Reasons, "\n"); got.Result != "contraindicated" || !strings.Contains(reasons, "incomplete") {
		t.Errorf("verdict after a used-up budget is %s because %q, want contraindicated because incomplete", got.Result, got.Reasons)
	}
}

// A wiped ESP: no policy, no bootloader. The router goes on without them.
func testUnreadableFlash(t *testing.T, l site) {
	out := filepath.Join(shortTemp(t), "wiped")
	if err := images.Edit(t.Context(), l.clean, out, board.Conf, "etc/rc.local", func(b []byte) ([]byte, error) { return b, nil }); err != nil {
		t.Fatal(err)
	}
	wipe(t, filepath.Join(out, images.DiskFile), 1<<20, 1<<20)
	v := l.boot(t, vm.Config{Dir: out, Direct: true})
	l.forwards(t, v)
	got := l.attest(t, v, exitFailed)
	if reasons := strings.Join(got.Reasons, "\n"); got.Result != "contraindicated" || !strings.Contains(reasons, "policy") {
		t.Errorf("verdict of a router with a wiped ESP is %s because %q, want contraindicated that names the policy", got.Result, got.Reasons)
	}
}

func wipe(t *testing.T, file string, offset, n int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, n), offset); err != nil {
		t.Fatal(err)
	}
}

// A full configuration partition: nothing can be stored, all else works.
func testFullDisk(t *testing.T, l site) {
	const script = `
while cat /bin/gosh >> /conf/filler; do echo filling; done
while cat /bin/uinit >> /conf/filler; do echo filling more; done
echo the disk is full
`
	image := l.edit(t, board.Conf, "etc/rc.local", func(b []byte) ([]byte, error) { return append(b, script...), nil })
	v := l.boot(t, vm.Config{Dir: image, Direct: true})
	l.await(t, v, "the disk is full")
	var stdout, stderr bytes.Buffer
	args := []string{"enroll", v.Address, "--owner", l.path("owner"), "--vendor-ca", l.path("vendor/vendor-ca.pem"), "--serial", labSerial}
	if code := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr); code != exitError || !strings.Contains(stderr.String(), "space") {
		t.Errorf("enrollment on a full disk: exit code %d, %s; want an error that names the space", code, &stderr)
	}
	got := l.attest(t, v, exitFailed)
	if want := []string{"startup/conf/etc/rc.local?c=text1"}; !slices.Equal(got.culprits(), want) {
		t.Errorf("culprits on a full disk are %q, want %q: the old certificates must still serve", got.culprits(), want)
	}
}

// The gate: two programs of openconfig/attestz that nobody here wrote enroll
// and attest the running router.
func testReferenceClients(t *testing.T, l site) {
	l.reference = ""
	v := l.boot(t, vm.Config{Dir: l.clean, Direct: true})
	bin := l.path("bin")
	interop(t, "build", bin)
	cert, key := l.path("owner/owner-ca.pem"), l.path("owner/owner-ca.key")
	interop(t, "enroll", bin, v.Address, cert, key, l.path("vendor/vendor-ca.pem"))

	saved := l.path("reference-client.json")
	l.attest(t, v, exitError, "--save", saved)
	var pcrs []string
	for pcr, value := range l.verified(t, saved).PCRs() {
		pcrs = append(pcrs, fmt.Sprintf("%q:%q", fmt.Sprint(pcr), fmt.Sprintf("%x", value)))
	}
	interop(t, "attest", bin, v.Address, cert, key, "{"+strings.Join(pcrs, ",")+"}")
}

func interop(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "../../scripts/interop/run", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("interop %s: %v\n%s", args[0], err, out)
	}
}
