package enrollz

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"waxseal/measure/wire"
)

func newChain(t testing.TB) wire.Chain {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return wire.ChainOf(cert)
}

func TestStoreKeepsEnrollment(t *testing.T) {
	s := NewStore(filepath.Join(t.TempDir(), "a", "b"))
	if e, err := s.Load(); err != nil || e.Enrolled() {
		t.Fatalf("empty store: %+v, %v", e, err)
	}
	for _, e := range []Enrollment{
		{Profile: "tls", OIAK: newChain(t), OIDevID: newChain(t)},
		{OIAK: newChain(t)},
	} {
		if err := s.Save(e); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Load(); err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("got %+v, %v: want %+v", got, err, e)
		}
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files in the store, %v: want 1", len(entries), err)
	}
}

func TestStoreRefusesWhatItHasNotWritten(t *testing.T) {
	good, err := encode(Enrollment{OIAK: newChain(t)})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":          "",
		"no oiak":        `{"format":"waxseal-enrollment-1","oiak":[]}`,
		"other format":   `{"format":"waxseal-enrollment-2","oiak":["x"]}`,
		"unknown key":    `{"format":"waxseal-enrollment-1","oiak":["x"],"x":1}`,
		"doubled key":    `{"format":"waxseal-enrollment-1","oiak":["x"],"oiak":["y"]}`,
		"no certificate": `{"format":"waxseal-enrollment-1","oiak":["x"]}`,
		"cut":            string(good[:len(good)/2]),
		"two of them":    string(good) + string(good),
		"large":          string(good) + string(make([]byte, maxFile)),
	} {
		s := NewStore(t.TempDir())
		if err := os.WriteFile(filepath.Join(s.dir, fileName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if e, err := s.Load(); err == nil || e.Enrolled() {
			t.Errorf("%s: accepted as %+v", name, e)
		}
	}
}

// crashDisk is a disk that loses its power after some step. What was not
// synced is then there, half there, or gone, as lucky says.
type crashDisk struct {
	steps int // until the power goes
	lucky bool

	cached  map[string][]byte // what the running system sees
	durable map[string][]byte // what is there after a power cut, if luck is bad
	synced  map[string]bool   // content of the cached file is on the disk
}

var errPower = errors.New("power cut")

func (d *crashDisk) step() error {
	if d.steps == 0 {
		return errPower
	}
	d.steps--
	return nil
}

func (d *crashDisk) makeDir(string) error { return d.step() }

func (d *crashDisk) writeFile(path string, data []byte) error {
	if err := d.step(); err != nil {
		d.cached[path], d.synced[path] = data[:len(data)/2], false
		return err
	}
	d.cached[path], d.synced[path] = data, false
	return nil
}

func (d *crashDisk) syncFile(path string) error {
	if err := d.step(); err != nil {
		return err
	}
	d.synced[path] = true
	return nil
}

func (d *crashDisk) rename(from, to string) error {
	if err := d.step(); err != nil {
		return err
	}
	d.cached[to], d.synced[to] = d.cached[from], d.synced[from]
	delete(d.cached, from)
	return nil
}

func (d *crashDisk) syncDir(string) error {
	if err := d.step(); err != nil {
		return err
	}
	d.durable = maps.Clone(d.cached)
	return nil
}

func (d *crashDisk) readFile(path string) ([]byte, error) {
	b, ok := d.cached[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return b, nil
}

// reboot gives what the disk holds when the power is back. Names that were
// not synced may have reached the disk or not; content that was not synced
// under a name that did is garbage.
func (d *crashDisk) reboot() {
	if d.lucky {
		for path := range d.cached {
			if !d.synced[path] {
				d.cached[path] = make([]byte, len(d.cached[path]))
			}
		}
		d.steps = 100
		return
	}
	d.cached, d.steps = maps.Clone(d.durable), 100
}

func TestPowerCutLeavesOldOrNew(t *testing.T) {
	old := Enrollment{Profile: "old", OIAK: newChain(t), OIDevID: newChain(t)}
	next := Enrollment{Profile: "new", OIAK: newChain(t), OIDevID: newChain(t)}
	saved := false
	for steps := 0; !saved; steps++ {
		for _, lucky := range []bool{false, true} {
			t.Run(fmt.Sprintf("after %d steps, lucky %v", steps, lucky), func(t *testing.T) {
				disk := &crashDisk{steps: 100, lucky: lucky, cached: map[string][]byte{}, synced: map[string]bool{}}
				s := Store{"/state", disk}
				if err := s.Save(old); err != nil {
					t.Fatal(err)
				}
				disk.steps = steps
				err := s.Save(next)
				saved = err == nil
				disk.reboot()
				got, lerr := s.Load()
				if lerr != nil {
					t.Fatal(lerr)
				}
				if !reflect.DeepEqual(got, next) && (saved || !reflect.DeepEqual(got, old)) {
					t.Fatalf("saved %v, then found %q", saved, got.Profile)
				}
				if err := s.Save(next); err != nil {
					t.Fatalf("saving again: %v", err)
				}
			})
		}
	}
}

// Takes each sync away in turn: the test above must then find a mixture or a
// loss, or it would prove nothing.
func TestPowerCutWithoutSyncLoses(t *testing.T) {
	for name, disk := range map[string]*crashDisk{
		"file not synced":      {steps: 100, lucky: true, cached: map[string][]byte{}, synced: map[string]bool{}},
		"directory not synced": {steps: 100, cached: map[string][]byte{}, synced: map[string]bool{}},
	} {
		e := Enrollment{OIAK: newChain(t)}
		if err := (Store{"/state", lazyDisk{disk}}).Save(e); err != nil {
			t.Fatal(err)
		}
		disk.reboot()
		if got, err := (Store{"/state", disk}).Load(); err == nil && got.Enrolled() {
			t.Errorf("%s: nothing is lost", name)
		}
	}
}

type lazyDisk struct{ *crashDisk }

func (lazyDisk) syncFile(string) error { return nil }
func (lazyDisk) syncDir(string) error  { return nil }

func FuzzEnrollmentFile(f *testing.F) {
	f.Add([]byte(`{"format":"waxseal-enrollment-1","oiak":["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decode(b)
		if err != nil {
			return
		}
		again, err := encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := decode(again); err != nil || !reflect.DeepEqual(e, f) {
			t.Fatalf("%+v was written and read as %+v, %v", e, f, err)
		}
	})
}
