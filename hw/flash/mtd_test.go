package flash_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"waxseal/hw/flash"
)

const heading = "dev:    size   erasesize  name\n"

func TestMTDRegionsOfARouter(t *testing.T) {
	got, err := flash.ParseMTD([]byte(heading +
		"mtd0: 00040000 00010000 \"u-boot\"\nmtd1: 00010000 00010000 \"u-boot-env\"\nmtd12: 1c0000000 00020000 \"ubi (main)\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []flash.MTD{
		{Number: 0, Name: "u-boot", Size: 0x40000, EraseSize: 0x10000},
		{Number: 1, Name: "u-boot-env", Size: 0x10000, EraseSize: 0x10000},
		{Number: 12, Name: "ubi (main)", Size: 0x1c0000000, EraseSize: 0x20000},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
	if p := got[2].Path(); p != "/dev/mtd12ro" {
		t.Errorf("path is %s: need the device that cannot be written", p)
	}
}

func TestMTDRefusesWhatTheKernelDoesNotWrite(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":           "",
		"other heading":     "dev: size\n",
		"no colon":          heading + "mtd0 00040000 00010000 \"u-boot\"\n",
		"other device":      heading + "sda0: 00040000 00010000 \"u-boot\"\n",
		"negative":          heading + "mtd-1: 00040000 00010000 \"u-boot\"\n",
		"number with zero":  heading + "mtd01: 00040000 00010000 \"u-boot\"\n",
		"number 128":        heading + "mtd128: 00040000 00010000 \"u-boot\"\n",
		"short size":        heading + "mtd0: 40000 00010000 \"u-boot\"\n",
		"size of 2^63":      heading + "mtd0: 8000000000000000 00010000 \"u-boot\"\n",
		"capital digits":    heading + "mtd0: 0004000A 00010000 \"u-boot\"\n",
		"name without ends": heading + "mtd0: 00040000 00010000 u-boot\n",
		"empty name":        heading + "mtd0: 00040000 00010000 \"\"\n",
		"escape in name":    heading + "mtd0: 00040000 00010000 \"\x1b[2J\"\n",
		"number twice":      heading + strings.Repeat("mtd0: 00040000 00010000 \"u-boot\"\n", 2),
		"endless line":      heading + "mtd0: " + strings.Repeat("0", 1<<17) + "\n",
	} {
		if got, err := flash.ParseMTD([]byte(text)); !errors.Is(err, flash.ErrMTD) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func FuzzParseMTD(f *testing.F) {
	f.Add([]byte(heading + "mtd0: 00040000 00010000 \"u-boot\"\n"))
	f.Add([]byte(heading + "mtd0: 00040000 00010000 \"a\"b\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		regions, err := flash.ParseMTD(b)
		if err != nil {
			return
		}
		text := heading
		for _, m := range regions {
			text += fmt.Sprintf("mtd%d: %08x %08x \"%s\"\n", m.Number, m.Size, m.EraseSize, m.Name)
		}
		again, err := flash.ParseMTD([]byte(text))
		if err != nil || !slices.Equal(again, regions) {
			t.Errorf("%q reads as %+v, written again as %+v, %v", b, regions, again, err)
		}
	})
}
