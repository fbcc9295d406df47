package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"waxseal/hw/flash"
	"waxseal/measure"
)

// ErrDeviceOnly is what a Source of the build host returns for what only a
// device knows: its serial number, the values of its firmware's PCRs.
var ErrDeviceOnly = errors.New("known to the device only")

// Source is where the bytes come from: live devices on the router, files of an
// image on the build host. An error that is fs.ErrNotExist says that the thing
// is not there; any other that it cannot be read.
type Source interface {
	// Cmdline returns the command line of the running kernel; one line feed at
	// its end does not count.
	Cmdline(ctx context.Context) ([]byte, error)
	// Agent opens the executable that is running this code.
	Agent(ctx context.Context) (io.ReadCloser, error)
	// Serial returns the serial number of the device.
	Serial(ctx context.Context) (string, error)
	// Modules returns the names of the loaded kernel modules, sorted.
	Modules(ctx context.Context) ([]string, error)
	// Programs returns the loaded BPF programs, a line each, sorted.
	Programs(ctx context.Context) ([]string, error)
	// FirmwarePCRs returns PCR 0 to 9 of the strongest bank, PCR 0 first.
	FirmwarePCRs(ctx context.Context) ([]measure.Digest, error)
	// Volume returns the volume of the given name and its size in bytes.
	Volume(ctx context.Context, name string) (io.ReaderAt, int64, error)
	// Tree returns the directory tree of the given name. Open must not follow
	// links out of the tree; OpenTree returns such a tree. Links are recorded if
	// it implements fs.ReadLinkFS, and are errors otherwise.
	Tree(ctx context.Context, name string) (fs.FS, error)
}

// PCRReader is the part of a TPM that Live needs.
type PCRReader interface {
	Banks() []measure.Alg
	ReadPCR(ctx context.Context, pcr measure.PCR) ([]measure.Digest, error)
}

// Region is a volume that is read at any place, never written.
type Region = flash.Region

// Live is a Source over what its owner has opened. A field that is nil, and a
// name that is not in its map, is fs.ErrNotExist.
type Live struct {
	CommandLine func() ([]byte, error)
	Executable  func() (io.ReadCloser, error)
	SerialText  func() (string, error)
	ModuleNames func() ([]string, error)
	BPFPrograms func() ([]string, error)
	TPM         PCRReader
	Volumes     map[string]Region
	Trees       map[string]fs.FS
}

var _ Source = Live{}

// Cmdline implements Source.
func (l Live) Cmdline(context.Context) ([]byte, error) {
	if l.CommandLine == nil {
		return nil, fmt.Errorf("command line: %w", fs.ErrNotExist)
	}
	return l.CommandLine()
}

// Agent implements Source.
func (l Live) Agent(context.Context) (io.ReadCloser, error) {
	if l.Executable == nil {
		return nil, fmt.Errorf("executable: %w", fs.ErrNotExist)
	}
	return l.Executable()
}

// Serial implements Source.
func (l Live) Serial(context.Context) (string, error) {
	if l.SerialText == nil {
		return "", fmt.Errorf("serial number: %w", fs.ErrNotExist)
	}
	return l.SerialText()
}

// Modules implements Source.
func (l Live) Modules(context.Context) ([]string, error) {
	if l.ModuleNames == nil {
		return nil, fmt.Errorf("modules: %w", fs.ErrNotExist)
	}
	return l.ModuleNames()
}

// Programs implements Source.
func (l Live) Programs(context.Context) ([]string, error) {
	if l.BPFPrograms == nil {
		return nil, fmt.Errorf("BPF programs: %w", fs.ErrNotExist)
	}
	return l.BPFPrograms()
}

// FirmwarePCRs implements Source.
func (l Live) FirmwarePCRs(ctx context.Context) ([]measure.Digest, error) {
	if l.TPM == nil {
		return nil, fmt.Errorf("TPM: %w", fs.ErrNotExist)
	}
	var best measure.Alg
	for _, alg := range l.TPM.Banks() {
		if alg.Computable() && alg.Size() > best.Size() {
			best = alg
		}
	}
	var values []measure.Digest
	for pcr := measure.PCR(0); pcr < firmwarePCRs; pcr++ {
		ds, err := l.TPM.ReadPCR(ctx, pcr)
		if err != nil {
			return nil, fmt.Errorf("PCR %d: %w", pcr, err)
		}
		for _, d := range ds {
			if d.Alg == best {
				values = append(values, d)
			}
		}
	}
	return values, nil
}

// Volume implements Source.
func (l Live) Volume(_ context.Context, name string) (io.ReaderAt, int64, error) {
	v, ok := l.Volumes[name]
	if !ok || v.ReaderAt == nil {
		return nil, 0, fmt.Errorf("volume %s: %w", name, fs.ErrNotExist)
	}
	return v.ReaderAt, v.Size, nil
}

// Tree implements Source.
func (l Live) Tree(_ context.Context, name string) (fs.FS, error) {
	t, ok := l.Trees[name]
	if !ok || t == nil {
		return nil, fmt.Errorf("tree %s: %w", name, fs.ErrNotExist)
	}
	return t, nil
}
