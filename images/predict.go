package images

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"waxseal/boot"
	"waxseal/measure"
	"waxseal/measure/reference"
)

// policyPath is the measurement policy on the ESP.
const policyPath = "waxseal/policy.json"

// PredictOptions say for which kind of start the prediction is.
type PredictOptions struct {
	Version string // the maker's release; empty: unversioned
	Direct  bool   // a start without firmware: assurance self, no firmware events
}

// Predict returns the reference values of the image in dir. The agent's part
// is what boot.Measure records over the disk that was not booted. The
// firmware's part is computed from the UKI and joined with what Learn recorded.
func Predict(ctx context.Context, dir string, o PredictOptions) (reference.Values, error) {
	image, err := open(ctx, dir)
	if err != nil {
		return reference.Values{}, err
	}
	defer image.close()
	name, err := os.ReadFile(filepath.Join(dir, BoardFile))
	if err != nil {
		return reference.Values{}, err
	}
	v := reference.Values{
		Format: reference.Format, Product: strings.TrimSpace(string(name)), Version: o.Version,
		Assurance: "self",
	}
	if v.Version == "" {
		v.Version = "unversioned"
	}
	if err := image.predictAgent(ctx, &v); err != nil {
		return reference.Values{}, fmt.Errorf("predict %s: %w", dir, err)
	}
	if !o.Direct {
		if err := image.predictFirmware(dir, &v); err != nil {
			return reference.Values{}, fmt.Errorf("predict %s: %w", dir, err)
		}
	}
	return v, v.Check()
}

// predictAgent fills in what the agent will record.
func (o *opened) predictAgent(ctx context.Context, v *reference.Values) error {
	raw, err := fs.ReadFile(o.trees["esp"], policyPath)
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	policy, err := boot.ParsePolicy(raw)
	if err != nil {
		return err
	}
	v.Profile = policy.Profile
	c := &collector{texts: map[[sha256.Size]byte]string{}}
	if err := boot.Predict(ctx, raw, o, c); err != nil {
		return err
	}
	for _, r := range c.records {
		if r.IsCap() {
			v.Handoff = r.Name
			continue
		}
		v.Items = append(v.Items, reference.Item{
			PCR: r.PCR, Name: r.Name, SHA256: []reference.Hex{r.Content[:]},
			Text: c.texts[r.Content], Contains: contains(r.Name),
		})
	}
	return nil
}

// Names of the records of the lab's UKI.
const (
	kernelName    = "kernel/uki/" + UKI
	initramfsName = "initramfs/uki/" + UKI
	cmdlineName   = "cmdline/uki/" + UKI
	stubName      = "bootloader/uki/" + UKI
	fileName      = "bootloader/uki/" + UKI + "/file"
	loaderName    = "bootloader/esp/EFI/BOOT/BOOTX64.EFI"
	agentName     = "agent/exe"
)

// contains says which records' contents are part of another's, so that a
// change is blamed on the part.
func contains(name string) []string {
	switch name {
	case fileName:
		return []string{stubName, kernelName, initramfsName, cmdlineName}
	case initramfsName:
		return []string{agentName}
	case "cmdline/live":
		return []string{cmdlineName}
	}
	return nil
}

// collector is the boot.Sink of a prediction.
type collector struct {
	records []measure.Record
	texts   map[[sha256.Size]byte]string
}

// Record implements boot.Sink.
func (c *collector) Record(_ context.Context, r measure.Record) (measure.Event, error) {
	c.records = append(c.records, r)
	return measure.Event{Record: r}, nil
}

// Keep implements boot.Sink.
func (c *collector) Keep(content []byte) { c.texts[sha256.Sum256(content)] = string(content) }

// Note implements boot.Sink. A prediction is strict: what could be noted is an error.
func (c *collector) Note(string, error) {}

// ErrNotLearned means that no golden boot of the image was recorded.
var ErrNotLearned = errors.New("no golden boot was recorded: run waxseal-image learn, or predict a direct start")
