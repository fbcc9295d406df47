package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"waxseal/agent/challenge"
	"waxseal/agent/journal"
	"waxseal/boot"
	"waxseal/hw/board"
	"waxseal/hw/flash"
	"waxseal/hw/kernel"
	"waxseal/hw/tpm"
	"waxseal/measure"
	"waxseal/measure/evidence"
)

// Where process 1 mounts the volumes that hold files.
const (
	espDir  = "/mnt/esp"
	confDir = "/mnt/conf"
)

const (
	diskWait  = 5 * time.Second // for the disk's partitions to appear
	tpmWait   = 3 * time.Second // for the TPM to appear
	closeWait = 5 * time.Second // for caps past the recorder
)

// handoffKind is how this agent hands over.
const handoffKind = "switch_root"

// policyPath is the measurement policy on the ESP.
const policyPath = "waxseal/policy.json"

// measureBoot mounts the board's volumes read-only and measures what the
// policy says. It never fails: what went wrong is in the result.
func measureBoot(log *slog.Logger) result {
	ctx := context.Background()
	parts := findParts(ctx, log)
	defer parts.close()
	res := result{Board: parts.board.Name, Serial: parts.serial}
	if err := parts.measure(ctx, log); err != nil {
		res.Unattested = reason(err)
		log.Warn("boot is not attested", "cause", err)
	}
	return res
}

// reason shortens an error to what an operator is told.
func reason(err error) string {
	switch {
	case errors.Is(err, tpm.ErrNoTPM):
		return "no TPM"
	case errors.Is(err, errUnexplained):
		return err.Error()
	case errors.Is(err, boot.ErrPolicy), errors.Is(err, boot.ErrIncomplete):
		// The caps say it under the TPM's signature: the device attests, and the verifier judges.
		return ""
	}
	return err.Error()
}

// parts are what the board is made of, as far as it could be opened.
type parts struct {
	board   board.Board
	serial  string
	sources boot.Live
	opened  []io.Closer
}

func (p *parts) close() {
	for _, c := range p.opened {
		c.Close()
	}
}

// findParts opens what is there. A part that is missing is measured as absent.
func findParts(ctx context.Context, log *slog.Logger) *parts {
	p := &parts{sources: boot.Live{
		CommandLine: func() ([]byte, error) { return os.ReadFile("/proc/cmdline") },
		Executable:  func() (io.ReadCloser, error) { return os.Open("/proc/self/exe") },
		ModuleNames: kernel.Modules,
		BPFPrograms: kernel.Programs,
		Volumes:     map[string]boot.Region{},
		Trees:       map[string]fs.FS{},
	}}
	b, err := board.Find(os.DirFS("/"))
	if err != nil {
		log.Error("board", "cause", err)
		return p
	}
	p.board, p.sources.SerialText = b, b.Serial
	if p.serial, err = b.Serial(); err != nil {
		log.Warn("serial number", "cause", err)
	}
	for _, v := range []struct {
		volume, dir, kind string
		flags             uintptr
	}{
		{board.ESP, espDir, "vfat", unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NODEV},
		{board.Conf, confDir, "ext4", unix.MS_NOSUID | unix.MS_NODEV},
		{board.Root, newRoot, "squashfs", 0},
	} {
		if err := p.open(ctx, v.volume, v.dir, v.kind, v.flags); err != nil {
			log.Warn("volume", "name", v.volume, "cause", err)
		}
	}
	return p
}

// open mounts a volume read-only on dir and keeps its device and its tree. The
// mount is made first: a journal that the kernel replays then is measured as replayed.
func (p *parts) open(ctx context.Context, volume, dir, kind string, flags uintptr) error {
	var path string
	err := waitFor(ctx, diskWait, func() (err error) {
		path, err = p.board.Device(volume)
		return err
	})
	if err != nil {
		return err
	}
	merr := mountPoint{path, dir, kind, flags | unix.MS_RDONLY, ""}.mount()
	if merr == nil {
		tree, err := boot.OpenTree(dir)
		if err != nil {
			return err
		}
		p.sources.Trees[volume] = tree
		p.opened = append(p.opened, tree)
	}
	device, err := flash.Open(path)
	if err != nil {
		return errors.Join(merr, err)
	}
	p.opened = append(p.opened, device)
	p.sources.Volumes[volume] = boot.Region{ReaderAt: device, Size: device.Size}
	return merr
}

// measure opens the TPM and carries the policy out. It never leaves an open
// TPM without caps: what could be extended after the hand-over could be made
// to look like a good boot.
func (p *parts) measure(ctx context.Context, log *slog.Logger) error {
	open, cancel := context.WithTimeout(ctx, tpmWait)
	defer cancel()
	dev, err := tpm.Open(open)
	if err != nil {
		return err
	}
	defer dev.Close()
	s := &sink{log: log}
	err = p.record(ctx, dev, s)
	if serr := dev.StopSalted(ctx); serr != nil {
		log.Warn("TPM session", "cause", serr)
	}
	if s.caps.Load() == int32(len(measure.Waxseal1.Capped())) {
		return err
	}
	return errors.Join(fmt.Errorf("%w: %w", errUnexplained, err), closePCRs(ctx, dev))
}

// errUnexplained means that the PCRs were closed by extends that no log explains.
var errUnexplained = errors.New("boot was not recorded")

// closePCRs caps the PCRs past the recorder and its log, so that nothing that
// is extended later can replay to a good boot.
func closePCRs(ctx context.Context, dev *tpm.Device) error {
	ctx, cancel := context.WithTimeout(ctx, closeWait)
	defer cancel()
	var errs []error
	for _, c := range measure.Waxseal1.Cap(measure.Abort + "unrecorded") {
		errs = append(errs, dev.Extend(ctx, c.PCR, c.Digests(dev.Banks())))
	}
	return errors.Join(errs...)
}

// record measures into s. Its panic is an error like others.
func (p *parts) record(ctx context.Context, dev *tpm.Device, s *sink) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("measuring panicked: %v", r)
		}
	}()
	keepFirmwareLog(s.log)
	p.keepOwner(s.log)
	raw := p.policy(s.log)
	if err := p.startRecorder(ctx, dev, raw, s); err != nil {
		return err
	}
	if err := dev.StartSalted(ctx); err != nil {
		return fmt.Errorf("TPM session: %w", err)
	}
	if err := recordStart(ctx, dev, s.recorder); err != nil {
		return err
	}
	p.sources.TPM = dev
	return boot.Measure(ctx, raw, p.sources, s)
}

// policy returns the bytes of the policy file: nil if there is none, empty if
// it cannot be read.
func (p *parts) policy(log *slog.Logger) []byte {
	tree, ok := p.sources.Trees[board.ESP]
	if !ok {
		return []byte{}
	}
	raw, err := readSmall(tree, policyPath, boot.MaxPolicy)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		log.Warn("policy", "cause", err)
		return []byte{}
	}
	return raw
}

// readSmall reads a file of at most limit bytes.
func readSmall(tree fs.FS, path string, limit int64) ([]byte, error) {
	f, err := tree.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return b, err
}

// startRecorder gives s its recorder and its store of contents.
func (p *parts) startRecorder(ctx context.Context, dev *tpm.Device, raw []byte, s *sink) error {
	profile := measure.Waxseal1
	if policy, err := boot.ParsePolicy(raw); err == nil {
		if policy.Handoff != handoffKind {
			return fmt.Errorf("policy wants a hand-over by %s: this agent hands over by %s", policy.Handoff, handoffKind)
		}
		if profile, err = measure.ParseProfile(policy.Profile); err != nil {
			return err
		}
	}
	j, err := journal.Open(journalDir)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	p.opened = append(p.opened, j) // the resident agent takes the journal over
	if s.contents, err = challenge.OpenContents(contentsDir); err != nil {
		return err
	}
	s.recorder, err = measure.NewRecorder(ctx, dev, j, profile.PCRs())
	return err
}

// recordStart ties the log to this start of the TPM: a log of another boot
// names other counters than the quote does.
func recordStart(ctx context.Context, dev *tpm.Device, recorder *measure.Recorder) error {
	c, err := dev.Counters(ctx)
	if err != nil {
		return err
	}
	name := evidence.StartName(c.ResetCount, c.RestartCount)
	rec, err := measure.Waxseal1.Of(name, []byte(name))
	if err != nil {
		return err
	}
	_, err = recorder.Record(ctx, rec)
	return err
}

// keepFirmwareLog copies the firmware's log to where the agent finds it.
func keepFirmwareLog(log *slog.Logger) {
	b, err := os.ReadFile(kernelFirmwareLog)
	if err == nil {
		err = os.WriteFile(firmwareLog, b, 0o600)
	}
	if err != nil {
		log.Warn("firmware log", "cause", err)
	}
}

// maxOwner is the largest file with the owner's trust anchors, in bytes.
const maxOwner = 64 << 10

// keepOwner copies the owner's trust anchors, and who may authorise mirrors,
// while nobody else runs, so that the agent trusts what was measured.
func (p *parts) keepOwner(log *slog.Logger) {
	tree, ok := p.sources.Trees[board.Conf]
	if !ok {
		return
	}
	for _, f := range []struct{ from, to, what string }{
		{"owner-ca.pem", ownerFile, "owner's trust anchors"},
		{"etc/waxseal/approvers.json", approversFile, "who may authorise mirrors"},
	} {
		b, err := readSmall(tree, f.from, maxOwner)
		if err == nil {
			err = os.WriteFile(f.to, b, 0o600)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Warn(f.what, "cause", err)
		}
	}
}

// sink is where boot.Measure puts what it found.
type sink struct {
	recorder *measure.Recorder
	contents *challenge.Contents
	log      *slog.Logger
	caps     atomic.Int32 // caps that were recorded
}

// Record implements boot.Sink.
func (s *sink) Record(ctx context.Context, r measure.Record) (measure.Event, error) {
	e, err := s.recorder.Record(ctx, r)
	if err == nil && r.IsCap() {
		s.caps.Add(1)
	}
	return e, err
}

// Keep implements boot.Sink.
func (s *sink) Keep(content []byte) {
	if err := s.contents.Keep(content); err != nil {
		s.log.Warn("content is not kept", "cause", err)
	}
}

// Note implements boot.Sink.
func (s *sink) Note(name string, err error) {
	s.log.Warn("measured in part", "record", name, "cause", err)
}
