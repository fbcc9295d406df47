package probe

import (
	"encoding/binary"
	"os"
	"testing"

	"github.com/cilium/ebpf"
)

// objects are those that a kernel may get.
var objects = map[string]func() (*ebpf.CollectionSpec, error){"full": loadFull, "small": loadSmall}

// loaded loads an object into this kernel.
func loaded(t testing.TB, name string) *object {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	o, err := loadObject(name, objects[name])
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { o.close() })
	return o
}

func TestThisKernelTakesBothObjects(t *testing.T) {
	for name := range objects {
		o := loaded(t, name)
		if info, err := o.Ingress.Info(); err != nil || !o.owns(id(t, info)) {
			t.Errorf("%s: its own program is not known to be its own: %v", name, err)
		}
		if o.owns(0) {
			t.Errorf("%s: a program without an id is taken for its own", name)
		}
	}
}

func id(t *testing.T, info *ebpf.ProgramInfo) uint32 {
	t.Helper()
	id, ok := info.ID()
	if !ok {
		t.Fatal("program without an id")
	}
	return uint32(id)
}

func TestStructsAreThoseOfTheHeader(t *testing.T) {
	for name := range objects {
		o := loaded(t, name)
		var sum count
		for _, c := range []struct {
			what string
			size uint32
			ours any
		}{
			{"config", o.Conf.ValueSize(), settings{}},
			{"port", o.Ports.ValueSize(), place{}},
			{"counts", o.Counts.ValueSize(), sum},
			{"orig_key", o.Origins.KeySize(), origin{}},
			{"orig", o.Origins.ValueSize(), sent{}},
		} {
			if got := binary.Size(c.ours); got != int(c.size) {
				t.Errorf("%s: %d bytes here, %d in the program", c.what, got, c.size)
			}
		}
	}
}
