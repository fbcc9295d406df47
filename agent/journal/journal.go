// Package journal keeps the agent's log where it outlives the process: in a
// directory of the running system, /run/waxseal, which ends with the boot as
// the PCRs do.
//
// A journal is a file of lines. The first says what the PCRs held before the
// first event; each further one is one event, written whole before the event
// is extended. A process that dies leaves at most one torn line, the last,
// whose event was therefore never extended: it is dropped. Everything else
// that is not exactly what this package writes is an error.
//
// The package survives the death of the process, not a power cut: that clears
// the PCRs too. It never talks to a TPM; reconciling the journal with the PCRs
// is the work of measure.Resume.
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"waxseal/measure"
)

// Limits of a journal.
const (
	MaxSize   = 32 << 20 // bytes of the file
	MaxEvents = 60000    // leaves room for the firmware's events in a log of 65,536
)

const fileName = "journal"

// Errors that a caller may decide on.
var (
	ErrLocked  = errors.New("journal is in use by another agent")
	ErrCorrupt = errors.New("journal is corrupt")
	ErrBegun   = errors.New("journal has been begun")
	ErrFull    = errors.New("journal is full")
)

// Journal is an open journal. It implements measure.Journal.
type Journal struct {
	mu     sync.Mutex // guards what follows
	file   *os.File
	size   int64 // of the complete lines
	start  []measure.PCRValue
	events []measure.Event
	broken error // a write that could not be undone
}

var _ measure.Journal = (*Journal)(nil)

// Open opens the journal in dir, makes it where there is none, and locks it.
// A torn last line is cut off.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	path := filepath.Join(dir, fileName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal{file: f}
	if err := j.read(); err != nil {
		f.Close()
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	return j, nil
}

func (j *Journal) read() error {
	info, err := j.file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: not a regular file", ErrCorrupt)
	}
	if err := unix.Flock(int(j.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w: %w", ErrLocked, err)
	}
	data, err := io.ReadAll(io.LimitReader(j.file, MaxSize+1))
	if err != nil {
		return err
	}
	if j.start, j.events, j.size, err = decode(data); err != nil {
		return err
	}
	return j.file.Truncate(j.size)
}

// Load returns what the journal held when it was opened and what was added
// since. start is nil where nothing has been begun.
func (j *Journal) Load() (start []measure.PCRValue, events []measure.Event, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.start), slices.Clone(j.events), j.broken
}

// Begin implements measure.Journal.
func (j *Journal) Begin(start []measure.PCRValue) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.start != nil {
		return ErrBegun
	}
	line, err := encodeStart(start)
	if err != nil {
		return err
	}
	if err := j.write(line); err != nil {
		return err
	}
	j.start = slices.Clone(start)
	return nil
}

// Append implements measure.Journal.
func (j *Journal) Append(e measure.Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.events) >= MaxEvents {
		return fmt.Errorf("%w: %d events", ErrFull, len(j.events))
	}
	line, err := encodeEvent(e, j.start)
	if err != nil {
		return err
	}
	if err := j.write(line); err != nil {
		return err
	}
	j.events = append(j.events, e)
	return nil
}

// write adds one line in one write. What a failed write has left is cut off,
// so that the next line does not grow out of it.
func (j *Journal) write(line []byte) error {
	if j.broken != nil {
		return j.broken
	}
	if j.size+int64(len(line)) > MaxSize {
		return fmt.Errorf("%w: %d bytes", ErrFull, j.size)
	}
	if _, err := j.file.WriteAt(line, j.size); err != nil {
		if terr := j.file.Truncate(j.size); terr != nil {
			j.broken = fmt.Errorf("journal has a torn line that stays: %w", terr)
		}
		return err
	}
	j.size += int64(len(line))
	return nil
}

// Close closes the file and gives up the lock. The journal stays.
func (j *Journal) Close() error { return j.file.Close() }

// decode reads a journal and returns the size of its complete lines.
func decode(data []byte) (start []measure.PCRValue, events []measure.Event, size int64, err error) {
	if len(data) > MaxSize {
		return nil, nil, 0, fmt.Errorf("%w: more than %d bytes", ErrCorrupt, MaxSize)
	}
	whole := data[:bytes.LastIndexByte(data, '\n')+1]
	if len(whole) == 0 {
		return nil, nil, 0, nil
	}
	first, rest, _ := bytes.Cut(whole, []byte{'\n'})
	if start, err = decodeStart(first); err != nil {
		return nil, nil, 0, fmt.Errorf("%w: line 1: %w", ErrCorrupt, err)
	}
	for n := 2; len(rest) > 0; n++ {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte{'\n'})
		e, err := decodeEvent(line, start)
		if err != nil {
			return nil, nil, 0, fmt.Errorf("%w: line %d: %w", ErrCorrupt, n, err)
		}
		if events = append(events, e); len(events) > MaxEvents {
			return nil, nil, 0, fmt.Errorf("%w: more than %d events", ErrCorrupt, MaxEvents)
		}
	}
	return start, events, int64(len(whole)), nil
}
