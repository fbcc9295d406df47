package boot

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"waxseal/measure"
)

func TestNoFileNameLooksLikeAMark(t *testing.T) {
	for _, name := range []string{"rc.local!absent", "rc.local!error", "network?c=uci1", "@list", "@list?c=list1", "a/@list", "line\nbreak", "blank name", "percent%41", "\xff\xfe", "umlaut-ä", "tab\t", "\x7f"} {
		e := escape(name)
		for _, mark := range []string{"!", "?", " ", "\n"} {
			if strings.Contains(e, mark) {
				t.Errorf("%q is written as %q", name, e)
			}
		}
		if strings.HasPrefix(e, "@") || strings.Contains(e, "/@") {
			t.Errorf("%q is written as %q", name, e)
		}
		if err := measure.CheckName("startup/conf/" + e); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if back, err := Unescape(e); err != nil || back != name {
			t.Errorf("%q is written as %q and read as %q, %v", name, e, back, err)
		}
	}
}

func TestPlainNamesStayReadable(t *testing.T) {
	for _, name := range []string{"etc/systemd/system/getty@tty1.service", "EFI/BOOT/BOOTX64.EFI", "frr.conf"} {
		if got := escape(name); got != name {
			t.Errorf("%s is written as %s", name, got)
		}
	}
}

func TestLongNameLeadsToThePath(t *testing.T) {
	for _, p := range []string{strings.Repeat("a", 255), strings.Repeat("\xff", 255), strings.Repeat("b/", 400) + "c"} {
		name, full := recordName("startup/conf", p, "text1")
		if err := measure.CheckName(name + measure.Absent); err != nil {
			t.Error(err)
		}
		sum := sha256.Sum256([]byte(p))
		if string(full) != p || !strings.HasSuffix(name, "%~"+hex.EncodeToString(sum[:])+"?c=text1") {
			t.Errorf("name %s, path kept %q", name, full)
		}
	}
	if _, full := recordName("startup/conf", strings.Repeat("a", 150), "text1"); full != nil {
		t.Error("a name with room was shortened")
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("etc/rc.local", "etc/rc.local!absent")
	f.Fuzz(func(t *testing.T, a, b string) {
		if back, err := Unescape(escape(a)); err != nil || back != a {
			t.Errorf("%q comes back as %q, %v", a, back, err)
		}
		x, _ := recordName("startup/conf", a, "text1")
		y, _ := recordName("startup/conf", b, "text1")
		if a != b && x == y {
			t.Errorf("%q and %q have the same name %s", a, b, x)
		}
		if got, err := Unescape(b); err == nil && escape(got) != b {
			t.Errorf("%q is read as %q, which is written %q", b, got, escape(got))
		}
	})
}
