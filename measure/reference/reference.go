// Package reference is the file format of reference values: what a good boot
// looks like (RFC 9334, section 8.3). It holds no judgement and no secret.
package reference

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"waxseal/measure"
)

// Format is the value of Values.Format that this package reads and writes.
const Format = "waxseal-reference-1"

// MaxSize is the largest reference file that Parse accepts, in bytes.
const MaxSize = 8 << 20

// Values is what a good boot of one version of one product looks like.
type Values struct {
	Format    string          `json:"format"`
	Product   string          `json:"product"`            // for example qemu-amd64
	Version   string          `json:"version"`            // the maker's release, free text
	Profile   string          `json:"profile"`            // PCR profile, for example waxseal-1
	Assurance string          `json:"assurance"`          // the least assurance level that an answer must reach: self, firmware or hardware
	Handoff   string          `json:"handoff"`            // name of the cap, for example phase/handoff/switch_root
	Items     []Item          `json:"items"`              // the agent's records, in the order of the policy
	Firmware  []FirmwareEvent `json:"firmware,omitempty"` // the firmware's events in log order; empty where assurance is self
}

// Item is one expected record of the agent.
type Item struct {
	PCR      measure.PCR `json:"pcr"`
	Name     string      `json:"name"`
	SHA256   []Hex       `json:"sha256"`             // accepted content digests, at least one
	Text     string      `json:"text,omitempty"`     // canonical text, for a verdict that shows the line that differs
	Contains []string    `json:"contains,omitempty"` // names of records whose content is part of this one
}

// FirmwareEvent is one expected event of the firmware's log.
type FirmwareEvent struct {
	PCR      measure.PCR    `json:"pcr"`
	Type     uint32         `json:"type"`               // TCG event type; not authenticated, shown only
	Name     string         `json:"name"`               // component it speaks of, for example bootloader/esp/EFI/BOOT/BOOTX64.EFI
	Digests  map[string]Hex `json:"digests"`            // by name of the bank
	Source   string         `json:"source"`             // predicted (computed from the image) or recorded (from a golden boot)
	Contains []string       `json:"contains,omitempty"` // names of records whose content is part of this one
}

// Sources of a firmware event.
const (
	Predicted = "predicted"
	Recorded  = "recorded"
)

// Hex is a digest, written in lower-case hexadecimal.
type Hex []byte

// MarshalText implements encoding.TextMarshaler.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts lower case only.
func (h *Hex) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil {
		return err
	}
	if hex.EncodeToString(b) != string(text) {
		return errors.New("digest is not in lower-case hexadecimal")
	}
	*h = b
	return nil
}

// Parse reads a reference file. Unknown, doubled and differently spelled keys
// are errors.
func Parse(data []byte) (Values, error) {
	var v Values
	if len(data) > MaxSize {
		return v, fmt.Errorf("reference of %d bytes: at most %d", len(data), MaxSize)
	}
	if err := json.Unmarshal(data, &v, json.RejectUnknownMembers(true)); err != nil {
		return Values{}, fmt.Errorf("reference: %w", err)
	}
	if err := v.Check(); err != nil {
		return Values{}, fmt.Errorf("reference: %w", err)
	}
	return v, nil
}

// Encode returns the file that Parse reads.
func (v Values) Encode() ([]byte, error) {
	if err := v.Check(); err != nil {
		return nil, fmt.Errorf("reference: %w", err)
	}
	b, err := json.Marshal(v, jsontext.WithIndent("  "), json.Deterministic(true))
	return append(b, '\n'), err
}

// Check tells whether the values are complete, name each thing once, at its
// place, and contradict themselves nowhere.
func (v Values) Check() error {
	if v.Format != Format {
		return fmt.Errorf("format is %q: need %q", v.Format, Format)
	}
	if !slices.Contains([]string{"self", "firmware", "hardware"}, v.Assurance) {
		return fmt.Errorf("assurance %q is not one of self, firmware, hardware", v.Assurance)
	}
	profile, err := measure.ParseProfile(v.Profile)
	if err != nil {
		return err
	}
	if kind, ok := strings.CutPrefix(v.Handoff, measure.Handoff); !ok || kind == "" || measure.CheckName(v.Handoff) != nil {
		return fmt.Errorf("hand-over %q: need %s and its kind", v.Handoff, measure.Handoff)
	}
	if len(v.Items) == 0 {
		return errors.New("no items: such a reference judges nothing")
	}
	if v.Assurance != "self" && len(v.Firmware) == 0 {
		return fmt.Errorf("assurance %s without firmware events", v.Assurance)
	}
	if err := v.checkItems(profile); err != nil {
		return err
	}
	for i, e := range v.Firmware {
		if err := e.check(); err != nil {
			return fmt.Errorf("firmware event %d: %w", i, err)
		}
	}
	return v.checkContains()
}

func (v Values) checkItems(profile measure.Profile) error {
	seen := map[string]bool{}
	for _, it := range v.Items {
		if err := it.check(profile); err != nil {
			return err
		}
		if seen[it.Name] {
			return fmt.Errorf("item %q stands twice", it.Name)
		}
		seen[it.Name] = true
	}
	return nil
}

func (it Item) check(profile measure.Profile) error {
	r := measure.Record{PCR: it.PCR, Name: it.Name}
	if err := r.Check(); err != nil {
		return err
	}
	if pcr, err := profile.For(r.Subject()); err != nil || pcr != it.PCR {
		return fmt.Errorf("item %q in PCR %d: profile %s has it elsewhere", it.Name, it.PCR, profile.Name)
	}
	if r.IsCap() || strings.HasSuffix(it.Name, measure.Error) {
		return fmt.Errorf("item %q: a cap or an error is never a reference value", it.Name)
	}
	if len(it.SHA256) == 0 {
		return fmt.Errorf("item %q accepts no digest", it.Name)
	}
	for _, d := range it.SHA256 {
		if len(d) != sha256.Size {
			return fmt.Errorf("item %q: digest of %d bytes: need %d", it.Name, len(d), sha256.Size)
		}
	}
	if it.Text != "" && !it.accepts(sha256.Sum256([]byte(it.Text))) {
		return fmt.Errorf("item %q: its text has none of its digests", it.Name)
	}
	return nil
}

func (it Item) accepts(sum [sha256.Size]byte) bool {
	return slices.ContainsFunc(it.SHA256, func(d Hex) bool { return bytes.Equal(d, sum[:]) })
}

func (e FirmwareEvent) check() error {
	if e.PCR >= measure.NumPCRs || e.Name == "" || len(e.Digests) == 0 {
		return fmt.Errorf("PCR %d, name %q, %d digests: need a PCR, a name and a digest", e.PCR, e.Name, len(e.Digests))
	}
	if e.Source != Predicted && e.Source != Recorded {
		return fmt.Errorf("%s: source %q is neither predicted nor recorded", e.Name, e.Source)
	}
	for name, d := range e.Digests {
		alg, err := measure.ParseAlg(name)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		if len(d) != alg.Size() {
			return fmt.Errorf("%s: %s digest of %d bytes: need %d", e.Name, alg, len(d), alg.Size())
		}
	}
	return nil
}
