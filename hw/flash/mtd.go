package flash

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrMTD means that the text is not what /proc/mtd looks like.
var ErrMTD = errors.New("not the text of /proc/mtd")

// maxMTD bounds the number of MTD regions: Linux numbers them from 0, and the
// device numbers end at 127 (major 90, two minors each).
const maxMTD = 128

const mtdHeading = "dev:    size   erasesize  name"

// MTD is one region of raw flash as Linux names it.
type MTD struct {
	Number    int
	Name      string // from the device tree or the partition parser, such as u-boot-env
	Size      int64  // bytes
	EraseSize int64  // bytes
}

// Path returns the device that is read: the kernel refuses every write to it.
func (m MTD) Path() string { return fmt.Sprintf("/dev/mtd%dro", m.Number) }

// Open opens the region.
func (m MTD) Open() (*Device, error) {
	d, err := Open(m.Path())
	if err != nil {
		return nil, fmt.Errorf("mtd %s: %w", m.Name, err)
	}
	d.Name, d.Size = m.Name, m.Size
	return d, nil
}

// ParseMTD reads the text of /proc/mtd:
//
//	dev:    size   erasesize  name
//	mtd0: 00040000 00010000 "u-boot"
func ParseMTD(text []byte) ([]MTD, error) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	if !lines.Scan() || strings.TrimRight(lines.Text(), " ") != mtdHeading {
		return nil, fmt.Errorf("%w: no heading", ErrMTD)
	}
	var regions []MTD
	seen := map[int]bool{}
	for lines.Scan() {
		m, err := parseMTDLine(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("%w: line %q: %w", ErrMTD, lines.Text(), err)
		}
		if seen[m.Number] {
			return nil, fmt.Errorf("%w: mtd%d stands twice", ErrMTD, m.Number)
		}
		seen[m.Number] = true
		regions = append(regions, m)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMTD, err)
	}
	return regions, nil
}

func parseMTDLine(line string) (MTD, error) {
	dev, rest, ok := strings.Cut(line, ": ")
	fields := strings.SplitN(rest, " ", 3)
	if !ok || len(fields) != 3 {
		return MTD{}, errors.New("need a device, two sizes and a name")
	}
	digits, ok := strings.CutPrefix(dev, "mtd")
	number, err := strconv.Atoi(digits)
	if !ok || err != nil || number < 0 || number >= maxMTD || strconv.Itoa(number) != digits {
		return MTD{}, fmt.Errorf("%q is not an MTD device", dev)
	}
	size, err := parseHex(fields[0])
	if err != nil {
		return MTD{}, err
	}
	erase, err := parseHex(fields[1])
	if err != nil {
		return MTD{}, err
	}
	name, ok := strings.CutPrefix(fields[2], `"`)
	name, closed := strings.CutSuffix(name, `"`)
	if !ok || !closed || !printable(name) {
		return MTD{}, fmt.Errorf("name %s is not quoted printable ASCII", fields[2])
	}
	return MTD{number, name, size, erase}, nil
}

// parseHex reads "%8.8llx" as the kernel writes it.
func parseHex(s string) (int64, error) {
	if len(s) < 8 || strings.ToLower(s) != s {
		return 0, fmt.Errorf("size %q is not eight or more lower-case hexadecimal digits", s)
	}
	n, err := strconv.ParseUint(s, 16, 63)
	return int64(n), err
}

func printable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return s != ""
}
