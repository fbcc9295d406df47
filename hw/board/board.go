// Package board knows which router this is and where its parts lie: one
// table, looked up by DMI or device tree.
//
// It is pure but for the file tree that it is given; it opens no device. A
// router that is not in the table is an error, never a guess.
package board

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Volumes of a board: what a measurement policy calls the parts of a disk.
const (
	ESP  = "esp"  // EFI system partition: bootloader, kernels
	Root = "root" // root file system, squashfs
	Conf = "conf" // configuration that outlives an update
)

// Errors that a caller decides on.
var (
	ErrUnknown  = errors.New("this router is in no table")
	ErrNoSerial = errors.New("no usable serial number")
)

// Board is a router and where its parts lie.
type Board struct {
	Name    string            // for example qemu-amd64
	Disk    string            // device that it boots from
	Volumes map[string]string // volume → name of the GPT partition

	vendor, product string // DMI, both must match; "" where there is no DMI
	compatible      string // device tree; "" where there is none
	serial          string // file in the tree that holds the serial number
	root            fs.FS
}

// Files of the kernel that name the machine, in the tree from "/".
const (
	dmiVendor    = "sys/class/dmi/id/sys_vendor"
	dmiProduct   = "sys/class/dmi/id/product_name"
	dmiSerial    = "sys/class/dmi/id/product_serial"
	dtCompatible = "sys/firmware/devicetree/base/compatible"
)

// table is the one list of boards.
var table = []Board{
	{
		Name:    "qemu-amd64",
		Disk:    "/dev/vda",
		Volumes: map[string]string{ESP: "esp", Root: "root", Conf: "conf"},
		vendor:  "waxseal",
		product: "qemu-amd64",
		serial:  dmiSerial,
	},
}

// Find returns the board that the tree belongs to. root is the tree from "/",
// usually os.DirFS("/"). No match is ErrUnknown.
func Find(root fs.FS) (Board, error) { return find(table, root) }

// Lookup returns the board with the name, without a serial number: for a
// build host that makes an image for it.
func Lookup(name string) (Board, error) {
	for _, b := range table {
		if b.Name == name {
			return b, nil
		}
	}
	return Board{}, fmt.Errorf("board %q: %w", name, ErrUnknown)
}

func find(table []Board, root fs.FS) (Board, error) {
	vendor, product := text(root, dmiVendor), text(root, dmiProduct)
	compatible := strings.Split(text(root, dtCompatible), "\x00")
	for _, b := range table {
		if b.is(vendor, product, compatible) {
			b.root = root
			return b, nil
		}
	}
	return Board{}, fmt.Errorf("%w: DMI %q %q, device tree %q", ErrUnknown, vendor, product, compatible)
}

func (b Board) is(vendor, product string, compatible []string) bool {
	if b.compatible != "" {
		for _, c := range compatible {
			if c == b.compatible {
				return true
			}
		}
		return false
	}
	return b.vendor != "" && b.vendor == vendor && b.product == product
}

// Partition returns the name of the GPT partition that holds a volume.
func (b Board) Partition(volume string) (string, error) {
	name, ok := b.Volumes[volume]
	if !ok {
		return "", fmt.Errorf("board %s has no volume %q", b.Name, volume)
	}
	return name, nil
}

// maxSerial is the largest length of a serial number in bytes (X.520
// serialNumber: ub-serial-number is 64).
const maxSerial = 64

// placeholders are what makers leave in the field for the serial number.
var placeholders = []string{"none", "not specified", "default string", "to be filled by o.e.m.", "system serial number", "0", "unknown"}

// Serial returns the maker's serial number of this router. A missing one or a
// placeholder is ErrNoSerial: an identity is never invented.
func (b Board) Serial() (string, error) {
	if b.root == nil {
		return "", fmt.Errorf("board %s: %w: not found on a router", b.Name, ErrNoSerial)
	}
	raw, err := fs.ReadFile(b.root, b.serial)
	if err != nil {
		return "", fmt.Errorf("board %s: %w: %w", b.Name, ErrNoSerial, err)
	}
	serial := trim(raw)
	if err := CheckSerial(serial); err != nil {
		return "", fmt.Errorf("board %s: %s: %w", b.Name, b.serial, err)
	}
	return serial, nil
}

// CheckSerial tells whether a serial number can stand in a certificate and in
// a record: 1 to 64 bytes of printable ASCII without space, no placeholder.
func CheckSerial(serial string) error {
	if len(serial) == 0 || len(serial) > maxSerial {
		return fmt.Errorf("%w: %d bytes", ErrNoSerial, len(serial))
	}
	for _, p := range placeholders {
		if strings.EqualFold(serial, p) {
			return fmt.Errorf("%w: %q is a placeholder", ErrNoSerial, serial)
		}
	}
	for i := 0; i < len(serial); i++ {
		if serial[i] <= 0x20 || serial[i] > 0x7e {
			return fmt.Errorf("%w: %q is not printable ASCII without space", ErrNoSerial, serial)
		}
	}
	return nil
}

// text returns a file's text, "" if it cannot be read: then nothing matches it.
func text(root fs.FS, name string) string {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return trim(b)
}

// trim drops the newline of sysfs and the zeros of a device tree.
func trim(b []byte) string { return string(bytes.Trim(b, "\n\x00 ")) }
