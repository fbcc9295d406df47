package images

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"unicode/utf16"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"waxseal/boot/uki"
	"waxseal/images/authenticode"
	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/reference"
)

// bootOption is what the firmware measures before it starts the loader (PC
// Client Platform Firmware Profile, section 3.3.4.5).
const bootOption = "Calling EFI Application from Boot Option"

// firmwareName begins the names of the firmware's own components.
const firmwareName = "firmware/"

// recordedPCRs come from a golden boot; PCR 4, 9, 11 and 12 are computed from the image.
var recordedPCRs = []measure.PCR{0, 1, 2, 3, 5, 6, 7}

// banks are those for which events are predicted.
var banks = []measure.Alg{measure.SHA256, measure.SHA384}

// predictFirmware fills in what firmware, loader, stub and kernel will measure.
func (o *opened) predictFirmware(dir string, v *reference.Values) error {
	recorded, err := readRecorded(dir, v.Product)
	if err != nil {
		return err
	}
	v.Assurance = "firmware"
	v.Firmware = recorded
	for _, part := range []func() ([]reference.FirmwareEvent, error){o.pcr4, o.pcr9, o.pcr11, o.pcr12} {
		events, err := part()
		if err != nil {
			return err
		}
		v.Firmware = append(v.Firmware, events...)
	}
	return nil
}

// pcr4 is the firmware's record of the programs that it started: the loader,
// the UKI and, through the stub, the UKI's kernel.
func (o *opened) pcr4() ([]reference.FirmwareEvent, error) {
	events := []reference.FirmwareEvent{
		event(4, eventlog.EVEFIAction, firmwareName+"pcr4/boot-option", []byte(bootOption)),
		event(4, eventlog.EVSeparator, firmwareName+"pcr4/separator", make([]byte, 4)),
	}
	for _, p := range []struct{ path, name string }{
		{"EFI/BOOT/BOOTX64.EFI", loaderName},
		{"EFI/Linux/" + UKI + ".efi", fileName},
	} {
		pe, err := fs.ReadFile(o.trees["esp"], p.path)
		if err != nil {
			return nil, err
		}
		e, err := peEvent(p.name, pe)
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	kernel, err := peEvent(kernelName, o.sections[uki.Linux])
	return append(events, kernel), err
}

func peEvent(name string, pe []byte) (reference.FirmwareEvent, error) {
	e := reference.FirmwareEvent{PCR: 4, Type: eventlog.EVEFIBootServicesApp, Name: name, Source: reference.Predicted,
		Digests: map[string]reference.Hex{}, Contains: contains(name)}
	for _, alg := range banks {
		d, err := authenticode.Of(pe, alg)
		if err != nil {
			return e, fmt.Errorf("%s: %w", name, err)
		}
		e.Digests[alg.String()] = d.Sum
	}
	return e, nil
}

// pcr9 is the kernel's EFI stub: its load options and the initrd.
func (o *opened) pcr9() ([]reference.FirmwareEvent, error) {
	return []reference.FirmwareEvent{
		event(9, eventlog.EVEventTag, cmdlineName, loadOptions(o.sections[uki.Cmdline])),
		event(9, eventlog.EVEventTag, initramfsName, o.sections[uki.Initrd]),
	}, nil
}

// pcr11 is systemd-stub: the name and the content of each section, in its own
// order (systemd 252, src/boot/efi/stub.c).
func (o *opened) pcr11() ([]reference.FirmwareEvent, error) {
	var events []reference.FirmwareEvent
	for _, s := range []struct{ section, name string }{
		{uki.Linux, kernelName}, {uki.OSRel, stubName}, {uki.Cmdline, cmdlineName}, {uki.Initrd, initramfsName},
	} {
		content, ok := o.sections[s.section]
		if !ok {
			return nil, fmt.Errorf("UKI has no section %s", s.section)
		}
		events = append(events, event(11, eventlog.EVIPL, s.name, append([]byte(s.section), 0)), event(11, eventlog.EVIPL, s.name, content))
	}
	return events, nil
}

// pcr12 is the command line, measured by systemd-boot and again by its stub.
func (o *opened) pcr12() ([]reference.FirmwareEvent, error) {
	e := event(12, eventlog.EVIPL, cmdlineName, loadOptions(o.sections[uki.Cmdline]))
	return []reference.FirmwareEvent{e, e}, nil
}

// event returns a predicted event whose digest is that of data.
func event(pcr measure.PCR, kind uint32, name string, data []byte) reference.FirmwareEvent {
	e := reference.FirmwareEvent{PCR: pcr, Type: kind, Name: name, Source: reference.Predicted,
		Digests: map[string]reference.Hex{}, Contains: contains(name)}
	for _, alg := range banks {
		e.Digests[alg.String()] = measure.Hash(alg, data).Sum
	}
	return e
}

// loadOptions returns a command line as EFI programs get it: UTF-16 with a
// closing zero (UEFI Specification, EFI_LOADED_IMAGE_PROTOCOL).
func loadOptions(cmdline []byte) []byte {
	var buf bytes.Buffer
	binary.Write(&buf, binary.LittleEndian, append(utf16.Encode([]rune(string(cmdline))), 0))
	return buf.Bytes()
}

// recorded is the board's file: what only a boot can tell.
type recorded struct {
	Format string                    `json:"format"`
	Board  string                    `json:"board"`
	Events []reference.FirmwareEvent `json:"events"`
}

const recordedFormat = "waxseal-firmware-1"

// Learn writes the firmware's own events of a golden boot beside the image in
// dir. events are the firmware's events of evidence that was verified.
func Learn(dir string, events []eventlog.Event) error {
	name, err := os.ReadFile(filepath.Join(dir, BoardFile))
	if err != nil {
		return err
	}
	r := recorded{Format: recordedFormat, Board: string(bytes.TrimSpace(name))}
	count := map[string]int{}
	for _, e := range events {
		if !slices.Contains(recordedPCRs, e.PCR) || e.Type == eventlog.EVNoAction {
			continue
		}
		kind := fmt.Sprintf("%spcr%d/%s", firmwareName, e.PCR, eventlog.TypeName(e.Type))
		count[kind]++
		fe := reference.FirmwareEvent{PCR: e.PCR, Type: e.Type, Name: fmt.Sprintf("%s/%d", kind, count[kind]),
			Source: reference.Recorded, Digests: map[string]reference.Hex{}}
		for _, d := range e.Digests {
			fe.Digests[d.Alg.String()] = d.Sum
		}
		r.Events = append(r.Events, fe)
	}
	if len(r.Events) == 0 {
		return errors.New("the boot left no firmware events: was it a direct start?")
	}
	b, err := json.Marshal(r, jsontext.WithIndent("  "), json.Deterministic(true))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, FirmwareFile), append(b, '\n'), 0o644)
}

func readRecorded(dir, board string) ([]reference.FirmwareEvent, error) {
	b, err := os.ReadFile(filepath.Join(dir, FirmwareFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotLearned
	}
	if err != nil {
		return nil, err
	}
	var r recorded
	if err := json.Unmarshal(b, &r, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%s: %w", FirmwareFile, err)
	}
	if r.Format != recordedFormat || r.Board != board {
		return nil, fmt.Errorf("%s: format %q for board %q: need %q for %q", FirmwareFile, r.Format, r.Board, recordedFormat, board)
	}
	return r.Events, nil
}
