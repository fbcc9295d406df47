package evidence_test

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"reflect"
	"strings"
	"testing"

	"waxseal/measure"
	"waxseal/measure/evidence"
)

func TestEvidenceFileIsReadAsItWasWritten(t *testing.T) {
	b := ask(t, booted(t, elliptic.P256()), measure.SHA384)
	data := must(b.evidence.Encode())(t)
	got := must(evidence.Parse(data))(t)
	if !reflect.DeepEqual(got, b.evidence) {
		t.Errorf("read:\n%+v\nwritten:\n%+v", got, b.evidence)
	}
	b.evidence = got
	must(b.verify())(t)
	if again := must(got.Encode())(t); !bytes.Equal(again, data) {
		t.Error("the same evidence is written in two ways")
	}
}

func TestParseIsStrict(t *testing.T) {
	b := ask(t, booted(t, elliptic.P256()), measure.SHA256)
	b.evidence.Nonce = make([]byte, 16) // base64 of 16 zeros ends in "A==", where stray bits can hide
	good := string(must(b.evidence.Encode())(t))
	const nonce = `"nonce": "AAAAAAAAAAAAAAAAAAAAAA=="`
	for name, r := range map[string][2]string{
		"unknown key":               {`"format"`, `"extra": 1, "format"`},
		"doubled key":               {nonce, nonce + `, ` + nonce},
		"key in other case":         {`"nonce"`, `"Nonce"`},
		"another format":            {"waxseal-evidence-1", "waxseal-evidence-2"},
		"no format":                 {`"format": "waxseal-evidence-1",`, ``},
		"stray bits in base64":      {nonce, `"nonce": "AAAAAAAAAAAAAAAAAAAAAB=="`},
		"base64 without padding":    {nonce, `"nonce": "AAAAAAAAAAAAAAAAAAAAAA"`},
		"line break in base64":      {nonce, `"nonce": "AAAAAAAAAAAAAAAA\nAAAAAA=="`},
		"URL base64":                {nonce, `"nonce": "-AAAAAAAAAAAAAAAAAAAAA=="`},
		"bank by number":            {`"sha256"`, `11`},
		"bank in capitals":          {`"sha256"`, `"SHA256"`},
		"PCR 24":                    {`"15":`, `"24":`},
		"PCR 256 + 15":              {`"15":`, `"271":`},
		"PCR with leading zero":     {`"1":`, `"01":`},
		"PCR twice":                 {`"15":`, `"14":`},
		"certificate of a stranger": {`"oiak"`, `"ek"`},
		"unknown key of the card":   {`"role"`, `"rôle"`},
		"nonce of another type":     {nonce, `"nonce": [1]`},
	} {
		bad := strings.Replace(good, r[0], r[1], 1)
		if bad == good {
			t.Fatalf("%s: nothing to replace", name)
		}
		if _, err := evidence.Parse([]byte(bad)); !errors.Is(err, evidence.ErrFormat) {
			t.Errorf("%s: %v, want: %v", name, err, evidence.ErrFormat)
		}
	}
	for name, bad := range map[string]string{
		"nothing": "", "list": "[]", "two values": good + good, "text after it": good + "x",
		"not UTF-8": strings.Replace(good, "active", "\xff", 1), "nested": strings.Repeat("[", 20000),
		"too large": strings.Repeat(" ", evidence.MaxFile+1),
	} {
		if _, err := evidence.Parse([]byte(bad)); !errors.Is(err, evidence.ErrFormat) {
			t.Errorf("%s: %v, want: %v", name, err, evidence.ErrFormat)
		}
	}
}
