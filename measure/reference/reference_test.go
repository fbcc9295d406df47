package reference_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"waxseal/measure"
	"waxseal/measure/reference"
)

func sum(text string) reference.Hex {
	s := sha256.Sum256([]byte(text))
	return s[:]
}

// golden is a small reference in which everything occurs.
func golden() reference.Values {
	return reference.Values{
		Format: reference.Format, Product: "qemu-amd64", Version: "1.0", Profile: "waxseal-1",
		Assurance: "firmware", Handoff: "phase/handoff/switch_root",
		Items: []reference.Item{
			{PCR: measure.Common, Name: "policy/measure", SHA256: []reference.Hex{sum("policy")}},
			{PCR: measure.Code, Name: "initramfs/uki/waxseal", SHA256: []reference.Hex{sum("i")}, Contains: []string{"policy/measure"}},
			{PCR: measure.Device, Name: "config/uci/network?c=uci1", SHA256: []reference.Hex{sum("a\n"), sum("b\n")}, Text: "b\n"},
			{PCR: measure.Device, Name: "config/uci/tunnel?c=uci1!absent", SHA256: []reference.Hex{sum("absent")}},
		},
		Firmware: []reference.FirmwareEvent{{
			PCR: 4, Type: 0x80000003, Name: "bootloader/uki/waxseal/file", Source: reference.Predicted,
			Digests:  map[string]reference.Hex{"sha256": sum("pe"), "sha384": measure.Hash(measure.SHA384, nil).Sum},
			Contains: []string{"initramfs/uki/waxseal"},
		}},
	}
}

func TestReferenceIsReadAsItWasWritten(t *testing.T) {
	data, err := golden().Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := reference.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, golden()) {
		t.Errorf("read:\n%+v\nwritten:\n%+v", got, golden())
	}
	if again, err := got.Encode(); err != nil || !bytes.Equal(again, data) {
		t.Errorf("the same values are written in two ways (%v)", err)
	}
}

func TestValuesThatCannotJudgeAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*reference.Values){
		"another format":           func(v *reference.Values) { v.Format = "waxseal-reference-2" },
		"no assurance":             func(v *reference.Values) { v.Assurance = "" },
		"assurance none":           func(v *reference.Values) { v.Assurance = "none" },
		"unknown profile":          func(v *reference.Values) { v.Profile = "waxseal-9" },
		"no hand-over":             func(v *reference.Values) { v.Handoff = "" },
		"abort as hand-over":       func(v *reference.Values) { v.Handoff = "phase/abort/x" },
		"hand-over of no kind":     func(v *reference.Values) { v.Handoff = "phase/handoff/" },
		"hand-over with a space":   func(v *reference.Values) { v.Handoff = "phase/handoff/a b" },
		"no items":                 func(v *reference.Values) { v.Items = nil },
		"firmware without events":  func(v *reference.Values) { v.Firmware = nil },
		"item twice":               func(v *reference.Values) { v.Items = append(v.Items, v.Items[0]) },
		"item without a name":      func(v *reference.Values) { v.Items[0].Name = "" },
		"item in another PCR":      func(v *reference.Values) { v.Items[0].PCR = measure.Code },
		"item in PCR 24":           func(v *reference.Values) { v.Items[0].PCR = 24 },
		"item of an unknown class": func(v *reference.Values) { v.Items[0].Name = "poem/ode" },
		"cap as item": func(v *reference.Values) {
			v.Items[0].Name, v.Items[0].PCR = "phase/handoff/switch_root", measure.Runtime
		},
		"error as item":            func(v *reference.Values) { v.Items[0].Name += measure.Error },
		"item without a digest":    func(v *reference.Values) { v.Items[0].SHA256 = nil },
		"item with a short digest": func(v *reference.Values) { v.Items[0].SHA256[0] = v.Items[0].SHA256[0][1:] },
		"text of another digest":   func(v *reference.Values) { v.Items[2].Text = "c\n" },
		"event without a name":     func(v *reference.Values) { v.Firmware[0].Name = "" },
		"event in PCR 24":          func(v *reference.Values) { v.Firmware[0].PCR = 24 },
		"event without a digest":   func(v *reference.Values) { v.Firmware[0].Digests = nil },
		"event of no source":       func(v *reference.Values) { v.Firmware[0].Source = "" },
		"event of an unknown bank": func(v *reference.Values) { v.Firmware[0].Digests["md5"] = sum("x") },
		"event with a digest of another bank": func(v *reference.Values) {
			v.Firmware[0].Digests["sha384"] = sum("x")
		},
		"names that contain each other": func(v *reference.Values) {
			v.Items[0].Contains = []string{"bootloader/uki/waxseal/file"}
		},
		"name that contains itself": func(v *reference.Values) { v.Items[0].Contains = []string{"policy/measure"} },
	} {
		v := golden()
		spoil(&v)
		if err := v.Check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := v.Encode(); err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func TestParseIsStrict(t *testing.T) {
	data, err := golden().Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := string(data)
	digest := hex.EncodeToString(sum("policy"))
	for name, r := range map[string][2]string{
		"unknown key":        {`"format"`, `"extra": 1, "format"`},
		"doubled key":        {`"version"`, `"version": "2", "version"`},
		"key in other case":  {`"product"`, `"Product"`},
		"digest in capitals": {digest, strings.ToUpper(digest)},
		"digest not in hex":  {digest, "x" + digest[1:]},
		"digest of odd size": {digest, digest[1:]},
		"PCR as text":        {`"pcr": 13`, `"pcr": "13"`},
		"PCR 256 + 13":       {`"pcr": 13`, `"pcr": 269`},
		"negative type":      {`"type": 2147483651`, `"type": -1`},
		"text after it":      {"\n}\n", "\n}\nx"},
		"not UTF-8":          {"qemu", "\xff"},
	} {
		bad := strings.Replace(good, r[0], r[1], 1)
		if bad == good {
			t.Fatalf("%s: nothing to replace in\n%s", name, good)
		}
		if _, err := reference.Parse([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := reference.Parse(make([]byte, reference.MaxSize+1)); err == nil {
		t.Error("too large: accepted")
	}
}

// FuzzParse demands that whatever is accepted is written and read again as it is.
func FuzzParse(f *testing.F) {
	data, err := golden().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"format":"waxseal-reference-1"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := reference.Parse(data)
		if err != nil {
			return
		}
		encoded, err := v.Encode()
		if err != nil {
			t.Fatalf("accepted, and cannot be written: %v", err)
		}
		again, err := reference.Parse(encoded)
		if err != nil {
			t.Fatalf("written, and cannot be read: %v", err)
		}
		if twice, _ := again.Encode(); !bytes.Equal(twice, encoded) {
			t.Error("changed by writing and reading")
		}
	})
}
