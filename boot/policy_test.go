package boot_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"waxseal/boot"
)

// policy returns a policy file of the given items, each a JSON object.
func policy(items ...string) []byte {
	return []byte(`{"format":"waxseal-policy-1","profile":"waxseal-1","budget":"2s","stop":"5s","handoff":"switch_root","items":[` + strings.Join(items, ",") + `]}`)
}

const (
	cmdlineItem = `{"kind":"cmdline"}`
	uciItem     = `{"kind":"config","volume":"conf","path":"etc/config/*","canon":"uci1","source":"uci"}`
)

func TestPolicyIsRead(t *testing.T) {
	p, err := boot.ParsePolicy(policy(cmdlineItem, uciItem))
	if err != nil {
		t.Fatal(err)
	}
	if time.Duration(p.Budget) != 2*time.Second || time.Duration(p.Stop) != 5*time.Second || len(p.Items) != 2 {
		t.Errorf("policy %+v", p)
	}
	if it := p.Items[1]; it.Kind != boot.Config || it.Path != "etc/config/*" || it.Source != "uci" {
		t.Errorf("item %+v", it)
	}
}

func TestMalformedPolicyIsRefused(t *testing.T) {
	good := string(policy(cmdlineItem))
	replace := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for name, raw := range map[string]string{
		"empty":                      "",
		"not JSON":                   "measure everything",
		"cut":                        good[:len(good)-1],
		"more after the end":         good + "{}",
		"too large":                  good + strings.Repeat(" ", boot.MaxPolicy),
		"unknown key":                replace(`"profile"`, `"note":"x","profile"`),
		"doubled key":                replace(`"profile"`, `"format":"waxseal-policy-1","profile"`),
		"key in another case":        replace(`"profile"`, `"Profile"`),
		"invalid UTF-8":              replace("waxseal-1", "waxseal-\xff"),
		"other format":               replace("policy-1", "policy-2"),
		"unknown profile":            replace(`"waxseal-1"`, `"waxseal-0"`),
		"no budget":                  replace(`"budget":"2s",`, ``),
		"negative budget":            replace(`"2s"`, `"-2s"`),
		"stop before budget":         replace(`"5s"`, `"1s"`),
		"stop of a day":              replace(`"5s"`, `"24h"`),
		"budget without a unit":      replace(`"2s"`, `"2"`),
		"budget as a number":         replace(`"2s"`, `2`),
		"other hand-over":            replace("switch_root", "reboot"),
		"no items":                   string(policy()),
		"unknown kind":               string(policy(`{"kind":"bios"}`)),
		"field of another kind":      string(policy(`{"kind":"cmdline","path":"x"}`)),
		"field missing":              string(policy(`{"kind":"file","class":"bootloader","path":"x"}`)),
		"class of another PCR":       string(policy(`{"kind":"file","class":"config","volume":"esp","path":"x"}`)),
		"absolute path":              string(policy(`{"kind":"uki","volume":"esp","path":"/x"}`)),
		"path upwards":               string(policy(`{"kind":"uki","volume":"esp","path":"../x"}`)),
		"path upwards in the middle": string(policy(`{"kind":"uki","volume":"esp","path":"a/../../x"}`)),
		"path with a blank":          string(policy(`{"kind":"uki","volume":"esp","path":"a b"}`)),
		"pattern for a file":         string(policy(`{"kind":"uki","volume":"esp","path":"*.efi"}`)),
		"malformed pattern":          string(policy(`{"kind":"startup","volume":"conf","paths":["etc/[a"]}`)),
		"** in the middle":           string(policy(`{"kind":"startup","volume":"conf","paths":["etc/**/x"]}`)),
		"volume name with a slash":   string(policy(`{"kind":"uki","volume":"a/b","path":"x"}`)),
		"reserved volume name":       string(policy(`{"kind":"file","class":"bootloader","volume":"uki","path":"x"}`)),
		"unknown canonical form":     string(policy(`{"kind":"config","volume":"conf","path":"x","canon":"uci9"}`)),
		"tail of a raw volume":       string(policy(`{"kind":"volume","class":"rootfs","volume":"root","form":"raw","tail":"erased"}`)),
		"size of a terabyte":         string(policy(`{"kind":"uki","volume":"esp","path":"x","max_size":1099511627776}`)),
		"one item twice":             string(policy(cmdlineItem, cmdlineItem)),
		"one file twice":             string(policy(`{"kind":"file","class":"keys","volume":"esp","path":"x"}`, `{"kind":"file","class":"keys","volume":"esp","path":"x"}`)),
		"two files of one name":      string(policy(`{"kind":"config","volume":"conf","path":"a/x","canon":"raw","source":"s"}`, `{"kind":"config","volume":"conf","path":"b/x","canon":"raw","source":"s"}`)),
		"pattern beside a file":      string(policy(uciItem, `{"kind":"config","volume":"conf","path":"etc/config/network","canon":"uci1","source":"uci"}`)),
		"file beside a pattern":      string(policy(`{"kind":"config","volume":"conf","path":"etc/config/network","canon":"uci1","source":"uci"}`, uciItem)),
		"two lists of one name":      string(policy(`{"kind":"startup","volume":"conf","paths":["a/*"]}`, `{"kind":"startup","volume":"conf","paths":["b/*"]}`)),
	} {
		if p, err := boot.ParsePolicy([]byte(raw)); !errors.Is(err, boot.ErrPolicy) {
			t.Errorf("%s: policy %+v, error %v", name, p, err)
		}
	}
}

// FuzzParsePolicy: no panic; what is accepted keeps within its limits.
func FuzzParsePolicy(f *testing.F) {
	f.Add(policy(cmdlineItem, uciItem))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := boot.ParsePolicy(raw)
		if err != nil {
			if !errors.Is(err, boot.ErrPolicy) {
				t.Errorf("error %v is not ErrPolicy", err)
			}
			return
		}
		if p.Budget <= 0 || p.Stop < p.Budget || len(p.Items) == 0 {
			t.Errorf("accepted %+v", p)
		}
	})
}
