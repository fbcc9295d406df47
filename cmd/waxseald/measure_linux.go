package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
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
)

// Where process 1 mounts the volumes that hold files.
const (
	espDir  = "/mnt/esp"
	confDir = "/mnt/conf"
)

const (
	diskWait = 5 * time.Second // for the disk's partitions to appear
	tpmWait  = 3 * time.Second // for the TPM to appear
)

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
	case errors.Is(err, boot.ErrPolicy), errors.Is(err, boot.ErrIncomplete), errors.Is(err, boot.ErrRecord):
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
	merr := mountPoint{path, dir, kind, flags | unix.MS_RDONLY}.mount()
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

// measure opens the TPM and carries the policy out.
func (p *parts) measure(ctx context.Context, log *slog.Logger) error {
	open, cancel := context.WithTimeout(ctx, tpmWait)
	defer cancel()
	dev, err := tpm.Open(open)
	if err != nil {
		return err
	}
	defer dev.Close()
	keepFirmwareLog(log)
	p.keepOwner(log)
	raw := p.policy(log)
	recorder, contents, err := p.startRecorder(ctx, dev, raw)
	if err != nil {
		return err
	}
	if err := dev.StartSalted(ctx); err != nil {
		return fmt.Errorf("TPM session: %w", err)
	}
	if err := recordStart(ctx, dev, recorder); err != nil {
		return err
	}
	p.sources.TPM = dev
	err = boot.Measure(ctx, raw, p.sources, sink{recorder, contents, log})
	return errors.Join(err, dev.StopSalted(ctx))
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

func (p *parts) startRecorder(ctx context.Context, dev *tpm.Device, raw []byte) (*measure.Recorder, *challenge.Contents, error) {
	profile := measure.Waxseal1
	if policy, err := boot.ParsePolicy(raw); err == nil {
		profile, err = measure.ParseProfile(policy.Profile)
		if err != nil {
			return nil, nil, err
		}
	}
	j, err := journal.Open(journalDir)
	if err != nil {
		return nil, nil, fmt.Errorf("journal: %w", err)
	}
	p.opened = append(p.opened, j) // the resident agent takes the journal over
	contents, err := challenge.OpenContents(contentsDir)
	if err != nil {
		return nil, nil, err
	}
	recorder, err := measure.NewRecorder(ctx, dev, j, profile.PCRs())
	return recorder, contents, err
}

// recordStart ties the log to this start of the TPM: a log of another boot
// names other counters than the quote does.
func recordStart(ctx context.Context, dev *tpm.Device, recorder *measure.Recorder) error {
	c, err := dev.Counters(ctx)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("phase/start/%d.%d", c.ResetCount, c.RestartCount)
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

// keepOwner copies the owner's trust anchors while nobody else runs, so that
// the agent trusts what was measured.
func (p *parts) keepOwner(log *slog.Logger) {
	tree, ok := p.sources.Trees[board.Conf]
	if !ok {
		return
	}
	b, err := readSmall(tree, "owner-ca.pem", maxOwner)
	if err == nil {
		err = os.WriteFile(ownerFile, b, 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("owner's trust anchors", "cause", err)
	}
}

// sink is where boot.Measure puts what it found.
type sink struct {
	*measure.Recorder
	contents *challenge.Contents
	log      *slog.Logger
}

// Keep implements boot.Sink.
func (s sink) Keep(content []byte) {
	if err := s.contents.Keep(content); err != nil {
		s.log.Warn("content is not kept", "cause", err)
	}
}

// Note implements boot.Sink.
func (s sink) Note(name string, err error) {
	s.log.Warn("measured in part", "record", name, "cause", err)
}
