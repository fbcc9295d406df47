package enrollz

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Store keeps the enrollment in one file of a directory on a disk that
// survives a reboot. Both certificates stand in the one file, so that a power
// cut leaves the old ones or the new ones, never one of each. Removing the
// directory is the factory reset of the owner's certificates.
type Store struct {
	dir  string
	disk disk
}

const (
	fileName = "enrollment.json"
	tempName = "enrollment.json.new"
)

// disk holds the steps of a replacement, so that a test can cut the power
// after each of them.
type disk interface {
	makeDir(dir string) error
	writeFile(path string, data []byte) error // create or truncate, and write
	syncFile(path string) error
	rename(from, to string) error
	syncDir(dir string) error
	readFile(path string) ([]byte, error)
}

// NewStore returns a store in dir, which is made when it is first written.
func NewStore(dir string) Store { return Store{dir, realDisk{}} }

// Load returns the enrollment, or the zero value where there is none.
func (s Store) Load() (Enrollment, error) {
	path := filepath.Join(s.dir, fileName)
	b, err := s.disk.readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Enrollment{}, nil
	}
	if err != nil {
		return Enrollment{}, fmt.Errorf("read enrollment: %w", err)
	}
	e, err := decode(b)
	if err != nil {
		return Enrollment{}, fmt.Errorf("enrollment %s: %w", path, err)
	}
	return e, nil
}

// Save replaces the enrollment. When it returns without an error, the new one
// survives a power cut; when it fails, Load gives the old one or the new one.
func (s Store) Save(e Enrollment) error {
	b, err := encode(e)
	if err != nil {
		return fmt.Errorf("save enrollment: %w", err)
	}
	temp, path := filepath.Join(s.dir, tempName), filepath.Join(s.dir, fileName)
	for _, step := range []func() error{
		func() error { return s.disk.makeDir(s.dir) },
		func() error { return s.disk.writeFile(temp, b) },
		func() error { return s.disk.syncFile(temp) },
		func() error { return s.disk.rename(temp, path) },
		func() error { return s.disk.syncDir(s.dir) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("save enrollment: %w", err)
		}
	}
	return nil
}

type realDisk struct{}

// makeDir makes dir and its parents; the entry of each new one is synced into
// its parent.
func (d realDisk) makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := d.makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.syncDir(filepath.Dir(dir))
}

func (realDisk) writeFile(path string, data []byte) error { return os.WriteFile(path, data, 0o600) }

func (d realDisk) syncFile(path string) error { return d.sync(path, os.O_RDWR) }

func (d realDisk) syncDir(dir string) error { return d.sync(dir, os.O_RDONLY) }

func (realDisk) sync(path string, flag int) error {
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (realDisk) rename(from, to string) error { return os.Rename(from, to) }

func (realDisk) readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}
