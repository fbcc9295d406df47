package enrollz

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"syscall"
	"testing"
)

// TestMain lets the test's own program be the one that loses its power.
func TestMain(m *testing.M) {
	if at := os.Getenv("WAXSEAL_TEST_KILL"); at != "" {
		os.Exit(rotateAndDie(at, os.Getenv("WAXSEAL_TEST_STATE"), os.Getenv("WAXSEAL_TEST_NEXT")))
	}
	os.Exit(m.Run())
}

// rotateAndDie saves the enrollment that stands in a file, and kills itself at
// a step of that: before it, in the middle of what it writes, or after it.
func rotateAndDie(at, state, next string) int {
	b, err := os.ReadFile(next)
	if err != nil {
		return 2
	}
	e, err := decode(b)
	if err != nil {
		return 2
	}
	step, err := strconv.Atoi(at)
	if err != nil {
		return 2
	}
	if err := (Store{state, &dyingDisk{at: step}}).Save(e); err != nil {
		return 3
	}
	return 0
}

// dyingDisk is the real disk of a process that is killed at a step. Every
// operation has three places to die at.
type dyingDisk struct {
	realDisk
	at, passed int
}

func (d *dyingDisk) place() {
	if d.passed == d.at {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the signal is there
	}
	d.passed++
}

func (d *dyingDisk) do(step func() error) error {
	d.place()
	err := step()
	d.place()
	return err
}

func (d *dyingDisk) makeDir(dir string) error {
	return d.do(func() error { return d.realDisk.makeDir(dir) })
}

// writeFile writes half, and then all: some of it may be there.
func (d *dyingDisk) writeFile(path string, data []byte) error {
	return d.do(func() error {
		if err := d.realDisk.writeFile(path, data[:len(data)/2]); err != nil {
			return err
		}
		d.place()
		return d.realDisk.writeFile(path, data)
	})
}

func (d *dyingDisk) syncFile(path string) error {
	return d.do(func() error { return d.realDisk.syncFile(path) })
}

func (d *dyingDisk) rename(from, to string) error {
	return d.do(func() error { return d.realDisk.rename(from, to) })
}

func (d *dyingDisk) syncDir(dir string) error {
	return d.do(func() error { return d.realDisk.syncDir(dir) })
}

// D-43: a process that is killed at any step of a rotation leaves the old pair
// of certificates or the new pair, never one of each and never none.
func TestKilledRotationLeavesOldOrNewPair(t *testing.T) {
	old := Enrollment{Profile: "old", OIAK: newChain(t), OIDevID: newChain(t)}
	next := Enrollment{Profile: "new", OIAK: newChain(t), OIDevID: newChain(t)}
	for name, before := range map[string]*Enrollment{"first enrollment": nil, "rotation": &old} {
		t.Run(name, func(t *testing.T) {
			killed, found := 0, map[string]int{}
			for step := 0; ; step++ {
				state := filepath.Join(t.TempDir(), "state")
				want := Enrollment{}
				if before != nil {
					want = *before
					if err := NewStore(state).Save(want); err != nil {
						t.Fatal(err)
					}
				}
				died := rotateIn(t, state, next, step)
				got, err := NewStore(state).Load()
				if err != nil {
					t.Fatalf("killed at step %d: %v", step, err)
				}
				if !reflect.DeepEqual(got, next) && (!died || !reflect.DeepEqual(got, want)) {
					t.Fatalf("killed %v at step %d: found %q", died, step, got.Profile)
				}
				found[got.Profile]++
				if err := NewStore(state).Save(next); err != nil { // what a kill leaves is in nobody's way
					t.Fatalf("killed at step %d, saving again: %v", step, err)
				}
				if !died {
					break
				}
				killed++
			}
			if killed < 10 || len(found) != 2 {
				t.Errorf("killed at %d steps, found %v: want both at least once", killed, found)
			}
		})
	}
}

// rotateIn saves an enrollment in a process of its own that is killed at a
// step, and tells whether it was.
func rotateIn(t *testing.T, state string, next Enrollment, step int) (killed bool) {
	t.Helper()
	b, err := encode(next)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "next.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), fmt.Sprint("WAXSEAL_TEST_KILL=", step), "WAXSEAL_TEST_STATE="+state, "WAXSEAL_TEST_NEXT="+file)
	err = cmd.Run()
	if err == nil {
		return false
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Fatalf("step %d: the process ended by itself: %v", step, err)
	}
	return true
}

// A store that wrote in place would leave this, and it is no enrollment.
func TestHalfAnEnrollmentIsNotRead(t *testing.T) {
	old := Enrollment{Profile: "old", OIAK: newChain(t), OIDevID: newChain(t)}
	state := t.TempDir()
	if err := NewStore(state).Save(old); err != nil {
		t.Fatal(err)
	}
	b, err := encode(old)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, fileName), b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if e, err := NewStore(state).Load(); err == nil {
		t.Errorf("half of an enrollment is read as %+v", e)
	}
}
