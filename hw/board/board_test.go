package board

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

func tree(files map[string]string) fs.FS {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func qemu() map[string]string {
	return map[string]string{dmiVendor: "waxseal\n", dmiProduct: "qemu-amd64\n", dmiSerial: "WX-0001\n"}
}

func TestBoardOfTheLabIsFound(t *testing.T) {
	b, err := Find(tree(qemu()))
	if err != nil {
		t.Fatal(err)
	}
	serial, err := b.Serial()
	if err != nil {
		t.Fatal(err)
	}
	if b.Name != "qemu-amd64" || b.Disk != "/dev/vda" || serial != "WX-0001" {
		t.Errorf("found %s on %s with serial %s", b.Name, b.Disk, serial)
	}
	for _, volume := range []string{ESP, Root, Conf} {
		if name, err := b.Partition(volume); err != nil || name != volume {
			t.Errorf("volume %s is in %q, %v", volume, name, err)
		}
	}
	if name, err := b.Partition("swap"); err == nil {
		t.Errorf("volume swap is in %q", name)
	}
}

func TestUnknownRouterIsErrUnknown(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"nothing":       {},
		"other vendor":  {dmiVendor: "QEMU\n", dmiProduct: "qemu-amd64\n"},
		"other product": {dmiVendor: "waxseal\n", dmiProduct: "qemu-amd64 v2\n"},
		"no product":    {dmiVendor: "waxseal\n"},
		"device tree":   {dtCompatible: "waxseal\x00qemu-amd64\x00"},
	} {
		if b, err := Find(tree(files)); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: found %q, %v", name, b.Name, err)
		}
	}
}

func TestBoardIsFoundByItsDeviceTree(t *testing.T) {
	boards := []Board{
		{Name: "one", compatible: "maker,one", serial: "sys/firmware/devicetree/base/serial-number"},
		{Name: "two", compatible: "maker,two"},
	}
	root := tree(map[string]string{
		dtCompatible: "maker,one-rev2\x00maker,one\x00soc,x\x00",
		"sys/firmware/devicetree/base/serial-number": "SN42\x00",
	})
	b, err := find(boards, root)
	if err != nil {
		t.Fatal(err)
	}
	if serial, err := b.Serial(); b.Name != "one" || serial != "SN42" || err != nil {
		t.Errorf("found %s with serial %q, %v", b.Name, serial, err)
	}
	if b, err := find(boards, tree(map[string]string{dtCompatible: "maker,one-rev2\x00"})); err == nil {
		t.Errorf("part of a name finds %s", b.Name)
	}
}

func TestSerialIsNeverInvented(t *testing.T) {
	for name, serial := range map[string]string{
		"empty": "\n", "placeholder": "To Be Filled By O.E.M.\n", "none": "None", "two words": "WX 1",
		"escape": "WX\x1b[2J", "not ASCII": "WX-ß", "long": strings.Repeat("x", 65), "second line": "WX-1\nWX-2\n",
	} {
		files := qemu()
		files[dmiSerial] = serial
		b, err := Find(tree(files))
		if err != nil {
			t.Fatal(err)
		}
		if s, err := b.Serial(); !errors.Is(err, ErrNoSerial) {
			t.Errorf("%s: serial is %q, %v", name, s, err)
		}
	}
	files := qemu()
	delete(files, dmiSerial)
	b, err := Find(tree(files))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := b.Serial(); !errors.Is(err, ErrNoSerial) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: serial is %q, %v", s, err)
	}
}

func TestBuildHostLooksABoardUp(t *testing.T) {
	b, err := Lookup("qemu-amd64")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := b.Serial(); !errors.Is(err, ErrNoSerial) {
		t.Errorf("a board in the table has serial %q, %v", s, err)
	}
	if _, err := Lookup("qemu"); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown board: %v", err)
	}
}
