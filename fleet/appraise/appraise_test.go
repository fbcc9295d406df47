package appraise_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"waxseal/fleet/appraise"
	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
	"waxseal/measure/reference"
)

// read returns a case of testdata, with change applied to its text.
func read(t *testing.T, name string, change func(string) string) *testCase {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".txtar")
	if err != nil {
		t.Fatal(err)
	}
	return readCase(t, txtar.Parse([]byte(change(string(text)))))
}

func asItIs(text string) string { return text }

// Each part of a boot, when it alone is tampered with, is the one culprit;
// what differs besides follows from it.
func TestEachTamperingHasOneCulprit(t *testing.T) {
	for name, culprit := range map[string]string{
		"bootloader": "bootloader/esp/EFI/BOOT/BOOTX64.EFI", "kernel": "kernel/uki/waxseal",
		"initramfs": "initramfs/uki/waxseal", "agent": "agent/exe", "cmdline": "cmdline/uki/waxseal",
		"rootfs": "rootfs/squashfs/root", "config-line": "config/frr/frr.conf?c=frr1",
		"startup-file": "startup/conf/@list?c=list1", "startup-file-changed": "startup/conf/@list?c=list1",
		"policy": "policy/measure", "firmware-recorded": "firmware/volume",
	} {
		c := read(t, name, asItIs)
		v := appraise.Appraise(c.verify(t), c.ref, appraise.DefaultPolicy)
		culprits := v.Culprits()
		if len(culprits) != 1 || culprits[0].Name != culprit || !culprits[0].FirstDiverging {
			t.Errorf("%s: culprits %+v, want %s alone", name, culprits, culprit)
		}
		if v.Result != appraise.Contraindicated || !strings.Contains(v.Reasons[0], culprit) {
			t.Errorf("%s: %s because %q", name, v.Result, v.Reasons)
		}
		for _, component := range v.Components {
			if component.State == appraise.Follows && component.Follows != culprit {
				t.Errorf("%s: %s follows from %s", name, component.Name, component.Follows)
			}
		}
	}
}

func TestTwoCulpritsAreBothNamed(t *testing.T) {
	c := read(t, "kernel", func(s string) string {
		return strings.Replace(s, "root r1\n14 config/frr/frr.conf?c=frr1 @frr.conf\n14 startup/conf/@list?c=list1 @startup\naggregate", "root r2\n14 config/frr/frr.conf?c=frr1 @frr.conf\n14 startup/conf/@list?c=list1 @startup\naggregate", 1)
	})
	v := appraise.Appraise(c.verify(t), c.ref, appraise.DefaultPolicy)
	var names []string
	for _, culprit := range v.Culprits() {
		names = append(names, culprit.Name)
	}
	if want := []string{"kernel/uki/waxseal", "rootfs/squashfs/root"}; !slices.Equal(names, want) {
		t.Errorf("culprits %q, want %q", names, want)
	}
	if !strings.HasSuffix(v.Reasons[0], names[0]) {
		t.Errorf("reasons %q: the first in boot order is to stand first", v.Reasons)
	}
}

// What cannot be judged is never affirmed.
func TestNothingIsAffirmedWithoutJudgement(t *testing.T) {
	c := read(t, "good", asItIs)
	v := c.verify(t)
	if got := appraise.Appraise(v, c.ref, appraise.DefaultPolicy); got.Result != appraise.Affirming {
		t.Fatalf("the good boot: %s because %q", got.Result, got.Reasons)
	}
	rfc := c.ref
	rfc.Profile = "rfc9683"
	rfc.Items = []reference.Item{{PCR: 9, Name: "policy/measure", SHA256: c.ref.Items[0].SHA256}}
	for name, test := range map[string]struct {
		got    appraise.Verdict
		reason string
	}{
		"policy that names no PCR (D-37)":  {appraise.Appraise(v, c.ref, appraise.Policy{}), "the policy names no PCR"},
		"policy with a PCR not quoted":     {appraise.Appraise(v, c.ref, appraise.Policy{PCRs: []measure.PCR{10}}), "PCR 10, which the policy demands, is not quoted"},
		"evidence that was never verified": {appraise.Appraise(evidence.Verified{}, c.ref, appraise.DefaultPolicy), "evidence was not verified"},
		"reference without values":         {appraise.Appraise(v, reference.Values{}, appraise.DefaultPolicy), "reference values"},
		"reference of another profile":     {appraise.Appraise(v, rfc, appraise.DefaultPolicy), "evidence was read by PCR profile waxseal-1"},
		"refused evidence":                 {appraise.Refused(evidence.ErrSignature), "evidence refused"},
	} {
		if test.got.Result != appraise.Contraindicated || len(test.got.Reasons) == 0 || !strings.Contains(test.got.Reasons[0], test.reason) {
			t.Errorf("%s: %s because %q", name, test.got.Result, test.got.Reasons)
		}
	}
	refused := appraise.Refused(fmt.Errorf("router: %w", evidence.ErrSignature))
	if refused.Assurance != appraise.AssuranceNone || !strings.Contains(refused.Reasons[0], evidence.ErrSignature.Error()) {
		t.Errorf("refused evidence: %+v", refused)
	}
}

// verifyOf verifies a quote over pcrs only.
func (c *testCase) verifyOf(t *testing.T, bank measure.Alg, pcrs ...measure.PCR) evidence.Verified {
	t.Helper()
	ch, err := evidencetest.Challenge(bank, pcrs...)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := c.router.Answer(ch)
	if err != nil {
		t.Fatal(err)
	}
	v, err := evidence.Verify(ev, ch, c.router.Trust())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A PCR that is not quoted proves nothing, whatever the log says about it.
func TestItemsBeyondTheQuoteAreNotGood(t *testing.T) {
	c := read(t, "good", asItIs)
	policy := appraise.Policy{PCRs: []measure.PCR{12, 15}}
	v := appraise.Appraise(c.verifyOf(t, measure.SHA256, 12, 15), c.ref, policy)
	if v.Result != appraise.Contraindicated || v.Assurance != appraise.AssuranceSelf {
		t.Errorf("%s, %s", v.Result, v.Assurance)
	}
	if i := slices.IndexFunc(v.Reasons, func(r string) bool { return strings.Contains(r, "PCR 13 is not quoted") }); i < 0 {
		t.Errorf("reasons %q do not say that PCR 13 is not quoted", v.Reasons)
	}
	states := map[string]appraise.State{}
	for _, component := range v.Components {
		states[component.Name] = component.State
	}
	for name, want := range map[string]appraise.State{
		"rootfs/squashfs/root": appraise.Good, "config/frr/frr.conf?c=frr1": appraise.Unverified,
		"bootloader/esp/EFI/BOOT/BOOTX64.EFI": appraise.Unverified, "unverified/pcr14": appraise.Unverified,
		"phase/handoff/switch_root": appraise.Incomplete,
	} {
		if states[name] != want {
			t.Errorf("%s is %s, want %s", name, states[name], want)
		}
	}
}

// The firmware's log is not whole where one of its PCRs is not quoted.
func TestAssuranceNeedsAllPCRsOfTheFirmware(t *testing.T) {
	c := read(t, "good", asItIs)
	for _, without := range []measure.PCR{0, 8, 11} {
		pcrs := slices.DeleteFunc(slices.Clone(appraise.DefaultPolicy.PCRs), func(pcr measure.PCR) bool { return pcr == without })
		v := appraise.Appraise(c.verifyOf(t, measure.SHA256, pcrs...), c.ref, appraise.Policy{PCRs: pcrs})
		if v.Assurance != appraise.AssuranceSelf || v.Result != appraise.Contraindicated {
			t.Errorf("without PCR %d: %s, %s", without, v.Assurance, v.Result)
		}
		state := appraise.Good
		if without <= 9 { // the aggregate is over PCR 0 to 9
			state = appraise.Informational
		}
		if !slices.ContainsFunc(v.Components, func(c appraise.Component) bool {
			return c.Name == "aggregate/boot?c=sha256" && c.State == state
		}) {
			t.Errorf("without PCR %d: the aggregate is not %s", without, state)
		}
	}
}

// A reference that has no digest in the quoted bank does not know the event.
func TestReferenceWithoutTheQuotedBankIsNotMet(t *testing.T) {
	c := read(t, "good", asItIs)
	v := appraise.Appraise(c.verifyOf(t, measure.SHA384, appraise.DefaultPolicy.PCRs...), c.ref, appraise.DefaultPolicy)
	if v.Result != appraise.Contraindicated || v.Assurance != appraise.AssuranceSelf {
		t.Errorf("%s, %s because %q", v.Result, v.Assurance, v.Reasons)
	}
}

func TestItemMayBeAcceptedInSeveralForms(t *testing.T) {
	sum := sha256.Sum256([]byte("absent"))
	for name, want := range map[string]appraise.Result{"absent": appraise.Contraindicated, "good": appraise.Affirming, "rootfs": appraise.Affirming} {
		c := read(t, name, asItIs)
		other := sha256.Sum256([]byte("r2"))
		for i, it := range c.ref.Items {
			if it.Name == "rootfs/squashfs/root" {
				c.ref.Items[i].SHA256 = append(it.SHA256, other[:])
			}
		}
		c.ref.Items = append(c.ref.Items, reference.Item{PCR: 12, Name: "rootfs/squashfs/root!absent", SHA256: []reference.Hex{sum[:]}})
		v := appraise.Appraise(c.verify(t), c.ref, appraise.DefaultPolicy)
		if v.Result != want {
			t.Errorf("%s: %s because %q", name, v.Result, v.Reasons)
		}
		if slices.ContainsFunc(v.Culprits(), func(c appraise.Component) bool { return c.Name == "rootfs/squashfs/root" }) {
			t.Errorf("%s: the root file system is a culprit", name)
		}
	}
}

// What the reference knows only as absent is not good when it is there.
func TestPresentWhereAbsentIsExpectedIsUnknown(t *testing.T) {
	c := read(t, "good", func(s string) string {
		return strings.Replace(s, "12 rootfs/squashfs/root r1\n", "12 rootfs/squashfs/root!absent absent\n", 1)
	})
	v := appraise.Appraise(c.verify(t), c.ref, appraise.DefaultPolicy)
	if len(v.Culprits()) != 1 || v.Culprits()[0].State != appraise.Unknown {
		t.Errorf("culprits: %+v", v.Culprits())
	}
}

func TestVerdictIsReadAsItWasWritten(t *testing.T) {
	for _, name := range []string{"good", "kernel", "config-line", "mirror"} {
		c := read(t, name, asItIs)
		want := appraise.Appraise(c.verify(t), c.ref, appraise.DefaultPolicy)
		data, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := appraise.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read:\n%+v\nwritten:\n%+v", name, got, want)
		}
		again := appraise.Appraise(c.verify(t), c.ref, appraise.DefaultPolicy)
		if twice, _ := again.Encode(); string(twice) != string(data) {
			t.Errorf("%s: judged twice, two verdicts", name)
		}
		if _, err := appraise.Parse([]byte(strings.Replace(string(data), `"result"`, `"Result"`, 1))); err == nil {
			t.Errorf("%s: a key in other case is read", name)
		}
		if _, err := appraise.Parse([]byte(strings.Replace(string(data), appraise.Format, "waxseal-verdict-2", 1))); err == nil {
			t.Errorf("%s: another format is read", name)
		}
	}
}

// The content of a cap is its name, like that of every phase.
func TestCapWithAnotherContentIsNoHandOver(t *testing.T) {
	c := read(t, "good", func(s string) string { return strings.Replace(s, "cap phase/handoff/switch_root\n", "", 1) })
	for _, rec := range c.router.Profile.Cap(c.ref.Handoff) {
		if rec.PCR == measure.Common {
			rec.Content[0] ^= 1
		}
		if err := c.router.Record(rec); err != nil {
			t.Fatal(err)
		}
	}
	v := appraise.Appraise(c.verify(t), c.ref, appraise.DefaultPolicy)
	if len(v.Culprits()) != 1 || v.Culprits()[0].State != appraise.Incomplete {
		t.Errorf("culprits: %+v", v.Culprits())
	}
}

// A hostile log makes a verdict of bounded size.
func TestVerdictOverHostileLogIsSmall(t *testing.T) {
	c := read(t, "good", func(s string) string {
		var b strings.Builder
		for i := range 3000 {
			fmt.Fprintf(&b, "14 config/junk/%d x\n15 mirror/junk/%d x\n15 mirror/same %d\n", i, i, i)
		}
		return strings.Replace(s, "aggregate\n", "aggregate\n"+b.String(), 1)
	})
	v := appraise.Appraise(c.verify(t), c.ref, appraise.DefaultPolicy)
	if len(v.Components) > 400 || v.Result != appraise.Contraindicated {
		t.Errorf("%d components, %s", len(v.Components), v.Result)
	}
	for _, component := range v.Components {
		if len(component.Evidence) > 100 {
			t.Errorf("%s has %d rows", component.Name, len(component.Evidence))
		}
		if component.Name == "mirror/same" && component.Note != "2936 more measurements of the same kind" {
			t.Errorf("%s: note %q", component.Name, component.Note)
		}
	}
}

// Each flipped bit of the firmware's log is refused, or leaves the verdict.
func TestFlippedBitOfFirmwareLogLeavesTheVerdict(t *testing.T) {
	long := regexp.MustCompile(`(?m)^firmware (9|11|12|4 uki|4 kernel|4 bootloader/uki) .*\n`) // what makes it slow, and adds nothing
	c := read(t, "good", func(s string) string {
		return long.ReplaceAllString(strings.Replace(s, "assurance firmware", "assurance self", 1), "")
	})
	ch, err := evidencetest.Challenge(measure.SHA256, appraise.DefaultPolicy.PCRs...)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := c.router.Answer(ch)
	if err != nil {
		t.Fatal(err)
	}
	firmware := c.router.Log
	firmware.Events = c.router.Log.Firmware()
	head, err := eventlog.EncodeCEL(firmware)
	if err != nil {
		t.Fatal(err)
	}
	want, err := appraise.Appraise(c.verify(t), c.ref, appraise.DefaultPolicy).Encode()
	if err != nil {
		t.Fatal(err)
	}
	verifier := evidence.NewVerifier(c.router.Trust())
	log, same := ev.Log, 0
	for bit := range len(head) * 8 {
		ev.Log = slices.Clone(log)
		ev.Log[bit/8] ^= 1 << (bit % 8)
		v, err := verifier.Verify(ev, ch, c.router.Trust())
		if err != nil {
			continue
		}
		same++
		if got, _ := appraise.Appraise(v, c.ref, appraise.DefaultPolicy).Encode(); string(got) != string(want) {
			t.Fatalf("bit %d of byte %d changes the verdict:\n%s", bit%8, bit/8, got)
		}
	}
	if same == 0 {
		t.Error("no flip was without effect: nothing was compared")
	}
}
