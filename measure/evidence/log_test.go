package evidence_test

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"fmt"
	"slices"
	"testing"

	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
)

// reencode replaces the log by one that change has changed. What the encoder
// refuses to write is a fault of the test.
func (b *bundle) reencode(t *testing.T, change func(*eventlog.Log)) {
	t.Helper()
	log := b.router.Log
	log.Events = slices.Clone(log.Events)
	change(&log)
	b.evidence.Log = must(eventlog.EncodeCEL(log))(t)
}

func relogged(change func(*eventlog.Log)) func(*testing.T, *bundle) {
	return func(t *testing.T, b *bundle) { b.reencode(t, change) }
}

func patched(change func([]byte) []byte) func(*testing.T, *bundle) {
	return func(t *testing.T, b *bundle) { b.evidence.Log = change(slices.Clone(b.evidence.Log)) }
}

func without(pcr measure.PCR) func(*testing.T, *bundle) {
	return relogged(func(l *eventlog.Log) {
		l.Events = slices.DeleteFunc(l.Events, func(e eventlog.Event) bool { return e.PCR == pcr })
	})
}

// find returns the number of the first event that is so.
func find(l *eventlog.Log, is func(eventlog.Event) bool) int {
	return slices.IndexFunc(l.Events, is)
}

func TestVerifyRefusesLogs(t *testing.T) {
	router := booted(t, elliptic.P256())
	for _, test := range []refusal{
		{"D-26 log withheld", func(t *testing.T, b *bundle) { b.evidence.Log = nil }, evidence.ErrWithheld},
		{"D-26 events of PCR 12 withheld", without(12), evidence.ErrWithheld},
		{"D-26 events of PCR 8 are none, but those of PCR 11 withheld", without(11), evidence.ErrWithheld},
		{"D-26 one event withheld", relogged(func(l *eventlog.Log) {
			i := find(l, func(e eventlog.Event) bool { return e.PCR == 14 })
			l.Events = slices.Delete(l.Events, i, i+1)
		}), evidence.ErrReplay},
		{"D-27 log cut at an event", relogged(func(l *eventlog.Log) { l.Events = l.Events[:len(l.Events)-1] }), evidence.ErrReplay},
		{"D-27 log cut inside an event", patched(func(b []byte) []byte { return b[:len(b)-3] }), evidence.ErrLog},
		{"D-28 log longer than the PCRs", relogged(func(l *eventlog.Log) {
			l.Events = append(l.Events, ours(t, 15, "phase/late", "phase/late"))
		}), evidence.ErrReplay},
		{"D-30 type rewritten to hide an event", relogged(func(l *eventlog.Log) {
			i := find(l, func(e eventlog.Event) bool { return e.Type == eventlog.EVEFIBootServicesApp })
			l.Events[i].Type = eventlog.EVNoAction
			for j, d := range l.Events[i].Digests {
				l.Events[i].Digests = slices.Clone(l.Events[i].Digests)
				l.Events[i].Digests[j].Sum = make([]byte, len(d.Sum))
			}
		}), evidence.ErrReplay},
		{"D-31 another start-up locality", relogged(func(l *eventlog.Log) {
			l.Events = slices.Insert(l.Events, 0, noAction(append([]byte("StartupLocality\x00"), 3)))
			l.StartupLocality = 3
		}), evidence.ErrReplay},
		{"D-32 header that lies about the banks", relogged(func(l *eventlog.Log) {
			l.Banks = []measure.Alg{measure.SHA384}
			for i, e := range l.Events {
				l.Events[i].Digests = e.Digests[1:]
			}
		}), evidence.ErrBank},
		{"D-32 log above the size that is read", func(t *testing.T, b *bundle) {
			b.evidence.Log = make([]byte, eventlog.MaxSize+1)
		}, evidence.ErrLog},
		{"D-33 record changed, digest kept", patched(func(b []byte) []byte {
			return bytes.Replace(b, []byte("bootloader/mtd/u-boot"), []byte("bootloader/mtd/u-loot"), 1)
		}), evidence.ErrLog},
		{"D-33 text of an action changed, digest kept", patched(func(b []byte) []byte {
			return bytes.Replace(b, []byte("Calling EFI"), []byte("Failing EFI"), 1)
		}), evidence.ErrData},
		{"D-35 separator missing", relogged(func(l *eventlog.Log) {
			i := find(l, func(e eventlog.Event) bool { return e.Type == eventlog.EVSeparator && e.PCR == 1 })
			l.Events = slices.Delete(l.Events, i, i+1)
		}), evidence.ErrSeparator},
		{"D-36 gap in the numbers", patched(func(b []byte) []byte { b[12]++; return b }), evidence.ErrLog},
		{"D-36 bytes after the last record", patched(func(b []byte) []byte { return append(b, 0) }), evidence.ErrLog},
		{"empty text instead of a log", func(t *testing.T, b *bundle) { b.evidence.Log = []byte("[]") }, evidence.ErrLog},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := ask(t, router, measure.SHA256)
			test.spoil(t, &b)
			if _, err := b.verify(); !errors.Is(err, test.want) {
				t.Errorf("Verify: %v, want: %v", err, test.want)
			}
		})
	}
}

func ours(t testing.TB, pcr measure.PCR, name, content string) eventlog.Event {
	rec := must(measure.Waxseal1.Of(name, []byte(content)))(t)
	rec.PCR = pcr
	return eventlog.Of(measure.Event{Record: rec, Digests: rec.Digests([]measure.Alg{measure.SHA256, measure.SHA384})})
}

func noAction(data []byte) eventlog.Event {
	return eventlog.Event{Type: eventlog.EVNoAction, Data: data, Digests: []measure.Digest{
		{Alg: measure.SHA256, Sum: make([]byte, 32)}, {Alg: measure.SHA384, Sum: make([]byte, 48)},
	}}
}

// Here the TPM was really extended as the log says, and still it is refused.
func TestVerifyRefusesBoots(t *testing.T) {
	record := func(pcr measure.PCR, name string) func(*testing.T, *evidencetest.Router) {
		return func(t *testing.T, r *evidencetest.Router) {
			rec := measure.Record{PCR: pcr, Name: name}
			ok(t, r.Record(rec))
		}
	}
	boot := func(t *testing.T, r *evidencetest.Router) { firmware(t, r); measured(t, r) }
	type step = func(*testing.T, *evidencetest.Router)
	for _, test := range []struct {
		name  string
		steps []step
		want  error
	}{
		{"extended by somebody before the agent", []step{func(t *testing.T, r *evidencetest.Router) {
			ok(t, r.Extend(13, []measure.Digest{measure.Hash(measure.SHA256, nil), measure.Hash(measure.SHA384, nil)}))
		}, boot}, evidence.ErrReplay},
		{"firmware's event in PCR 13", []step{func(t *testing.T, r *evidencetest.Router) {
			ok(t, r.Firmware(13, eventlog.EVIPL, []byte("x"), []byte("x")))
		}, boot}, evidence.ErrUnclean},
		{"firmware's event in PCR 14", []step{func(t *testing.T, r *evidencetest.Router) {
			ok(t, r.Firmware(14, eventlog.EVIPL, []byte("x"), []byte("x")))
		}, boot}, evidence.ErrUnclean},
		{"firmware's event in PCR 15", []step{func(t *testing.T, r *evidencetest.Router) {
			ok(t, r.Firmware(15, eventlog.EVIPL, []byte("x"), []byte("x")))
		}, boot}, evidence.ErrUnclean},
		{"record after the cap", []step{boot, record(12, "kernel/late")}, evidence.ErrCap},
		{"second cap", []step{boot, record(14, "phase/handoff/kexec")}, evidence.ErrCap},
		{"cap after an abort", []step{boot, record(13, "phase/abort/late")}, evidence.ErrCap},
		{"cap in PCR 15", []step{boot, record(15, "phase/handoff/switch_root")}, evidence.ErrPlace},
		{"kernel in PCR 15", []step{boot, record(15, "kernel/late")}, evidence.ErrPlace},
		{"finding in PCR 14", []step{firmware2, record(14, "mirror/tc/eth0"), func(t *testing.T, r *evidencetest.Router) { measured(t, r) }}, evidence.ErrPlace},
		{"record in the firmware's PCR", []step{firmware2, record(8, "kernel/early"), func(t *testing.T, r *evidencetest.Router) { measured(t, r) }}, evidence.ErrPlace},
		{"record of an unknown class", []step{boot, record(15, "poem/ode")}, evidence.ErrPlace},
		{"record of an unknown class in PCR 0", []step{record(0, "poem/ode"), func(t *testing.T, r *evidencetest.Router) { measured(t, r) }}, evidence.ErrPlace},
		{"D-35 separator twice", []step{func(t *testing.T, r *evidencetest.Router) { ok(t, r.Separators()) }, boot}, evidence.ErrSeparator},
		{"D-35 firmware went on after its separator", []step{firmware2, func(t *testing.T, r *evidencetest.Router) {
			ok(t, r.Firmware(0, eventlog.EVSCRTMVersion, []byte("late"), []byte("late")))
			measured(t, r)
		}}, evidence.ErrSeparator},
		{"D-35 separator of an error", []step{func(t *testing.T, r *evidencetest.Router) {
			ok(t, r.Firmware(6, eventlog.EVSeparator, []byte{1, 0, 0, 0}, []byte{1, 0, 0, 0}))
		}, boot}, evidence.ErrSeparator},
		{"no start", []step{firmware2}, evidence.ErrStart},
		{"start twice, once of another boot", []step{boot, record(15, "phase/start/6.0")}, evidence.ErrStart},
		{"start with another content", []step{record(15, "phase/start/7.0")}, evidence.ErrStart},
		{"D-25 good log replayed into a TPM that was reset", []step{boot, func(t *testing.T, r *evidencetest.Router) {
			r.Counters.Reset++ // the TPM was reset; PCRs and log are as before
		}}, evidence.ErrStart},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := must(evidencetest.New("WX-0001", elliptic.P256()))(t)
			for _, step := range test.steps {
				step(t, r)
			}
			if _, err := ask(t, r, measure.SHA256).verify(); !errors.Is(err, test.want) {
				t.Errorf("Verify: %v, want: %v", err, test.want)
			}
		})
	}
}

func firmware2(t *testing.T, r *evidencetest.Router) { firmware(t, r) }

// D-12: the strong bank was never extended, and SHA-1 carries the log.
func TestStrongBankThatWasNeverExtendedIsRefused(t *testing.T) {
	r := must(evidencetest.New("WX-0001", elliptic.P256()))(t)
	ch := must(evidencetest.Challenge(measure.SHA256, asked...))(t)
	rec := must(r.Profile.Of("kernel/k", []byte("k")))(t)
	e := measure.Event{Record: rec, Digests: rec.Digests(r.Log.Banks)}
	r.Log.Events = append(r.Log.Events, eventlog.Of(e)) // in the log, and in no PCR of this bank
	b := bundle{r, must(r.Answer(ch))(t), ch, r.Trust()}
	if _, err := b.verify(); !errors.Is(err, evidence.ErrReplay) {
		t.Errorf("Verify: %v, want: %v", err, evidence.ErrReplay)
	}
}

func TestCleanStarts(t *testing.T) {
	for name, before := range map[string]func(*testing.T, *evidencetest.Router){
		"no firmware log, no firmware PCR": func(t *testing.T, r *evidencetest.Router) {},
		"systemd-stub in PCR 12": func(t *testing.T, r *evidencetest.Router) {
			firmware(t, r)
			ok(t, r.Firmware(12, eventlog.EVIPL, []byte("quiet"), []byte("quiet")))
		},
	} {
		r := must(evidencetest.New("WX-0001", elliptic.P256()))(t)
		before(t, r)
		measured(t, r)
		if _, err := ask(t, r, measure.SHA256).verify(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// D-31: EV_NO_ACTION extends nothing, yet says where PCR 0 began.
func TestStartupLocality(t *testing.T) {
	for name, boot := range map[string]func(testing.TB, *evidencetest.Router){"with a firmware": firmware, "nothing extended": func(testing.TB, *evidencetest.Router) {}} {
		r := must(evidencetest.New("WX-0001", elliptic.P256()))(t)
		r.StartAt(3, measure.SHA256, measure.SHA384)
		boot(t, r)
		measured(t, r)
		v := must(ask(t, r, measure.SHA256).verify())(t)
		for _, e := range v.Events() {
			if !e.Extends() {
				t.Errorf("%s: EV_NO_ACTION among the events that are proven", name)
			}
		}
		r.Log.Events, r.Log.StartupLocality = r.Log.Events[1:], 0
		if _, err := ask(t, r, measure.SHA256).verify(); err == nil {
			t.Errorf("%s: accepted without the event that explains PCR 0", name)
		}
	}
}

// PCR 17 to 22 begin with ones (no dynamic launch), the others with zeros.
func TestStartValues(t *testing.T) {
	r := booted(t, elliptic.P256())
	ch := must(evidencetest.Challenge(measure.SHA256, 10, 15, 17, 22))(t)
	must(bundle{r, must(r.Answer(ch))(t), ch, r.Trust()}.verify())(t)
	for _, pcr := range []measure.PCR{10, 17} {
		r := booted(t, elliptic.P256())
		ok(t, r.Extend(pcr, []measure.Digest{measure.Hash(measure.SHA256, nil)}))
		if _, err := (bundle{r, must(r.Answer(ch))(t), ch, r.Trust()}).verify(); !errors.Is(err, evidence.ErrWithheld) {
			t.Errorf("PCR %d: %v, want: %v", pcr, err, evidence.ErrWithheld)
		}
	}
}

// D-29, D-07: what the log says about PCRs beyond the quote is proven by nothing.
func TestEventsBeyondTheQuoteAreUnverified(t *testing.T) {
	r := booted(t, elliptic.P256())
	ch := must(evidencetest.Challenge(measure.SHA256, 12))(t)
	b := bundle{r, must(r.Answer(ch))(t), ch, r.Trust()}
	v := must(b.verify())(t)
	for _, e := range v.Events() {
		if e.PCR != 12 {
			t.Errorf("event of PCR %d is verified", e.PCR)
		}
	}
	if got := len(v.Events()) + len(v.Unverified()); got != len(r.Log.Events) {
		t.Errorf("%d events, log has %d", got, len(r.Log.Events))
	}
	if v.Quoted(13) || !v.Quoted(12) {
		t.Error("PCR 13 is quoted, or PCR 12 is not")
	}
}

// D-34: free-form event data is text only where its digest covers it.
func TestTextIsVerifiedWhereDigestCoversIt(t *testing.T) {
	v := must(ask(t, booted(t, elliptic.P256()), measure.SHA256).verify())(t)
	got := map[string]bool{}
	for _, e := range v.Events() {
		text, verified := evidence.Text(e, v.Bank())
		got[text] = verified
	}
	for text, want := range map[string]bool{
		"Calling EFI Application": true, "device path": false, ".linux": false,
		"bootloader/mtd/u-boot": true, `\x00\x00\x00\x00`: true,
	} {
		if verified, there := got[text]; !there || verified != want {
			t.Errorf("%q: verified %v, there %v; want verified %v", text, verified, there, want)
		}
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"interface eth0 # größe":    "interface eth0 # größe",
		"a\x1b[31mred":              `a\x1b[31mred`,
		"ab\u202edc":                `ab\u202edc`,
		"zero\u200bwidth":           `zero\u200bwidth`,
		"back\\slash":               `back\\slash`,
		"cut \xc3":                  `cut \xc3`,
		"tab\tand\r\n":              `tab\tand\r\n`,
		"\u2028line \u0085next\x7f": `\u2028line \u0085next\x7f`,
	} {
		if got := evidence.Escape(in); got != want {
			t.Errorf("Escape(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestNothingIsProvenByNothing(t *testing.T) {
	var v evidence.Verified
	if len(v.Events())+len(v.Firmware())+len(v.Records())+len(v.Unverified())+len(v.PCRs()) != 0 || v.Serial() != "" || v.Quoted(0) {
		t.Errorf("the zero value says something: %+v", v)
	}
}

func TestAccessorsGiveCopies(t *testing.T) {
	b := ask(t, booted(t, elliptic.P256()), measure.SHA256)
	v := must(b.verify())(t)
	v.Events()[0] = eventlog.Event{}
	v.Records()[0] = measure.Record{}
	clear(b.evidence.Log)
	if fmt.Sprint(v.Events()[0].Type) == "0" || v.Records()[0].Name == "" {
		t.Error("verified evidence changed under the caller's hands")
	}
}
