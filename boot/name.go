package boot

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"strings"

	"waxseal/boot/canon"
	"waxseal/measure"
)

// prefix returns the part of the item's record names before the path.
func (it Item) prefix() string {
	switch it.Kind {
	case File:
		return it.Class + "/" + it.Volume
	case Volume:
		return it.Class + "/" + it.Form
	case Config:
		if it.Source != "" {
			return "config/" + it.Source
		}
		return "config/" + it.Volume
	case Startup:
		return "startup/" + it.Volume
	}
	return string(it.Kind)
}

// claims returns the names that the item gives by its literal paths.
func (it Item) claims() []string {
	switch it.Kind {
	case Volume:
		return []string{it.prefix() + "/" + it.Volume}
	case UKI:
		return []string{"uki/" + ukiName(it.Path)}
	case File, Config, Startup:
		var c []string
		literals, _ := it.literals()
		for _, l := range literals {
			c = append(c, it.prefix()+"/"+escape(l.item))
		}
		return c
	}
	return []string{it.prefix()}
}

// relative returns name as it stands in the record: for a config item with a
// source without the literal directories at the head of the pattern.
func (it Item) relative(pattern, name string) string {
	if it.Kind != Config || it.Source == "" {
		return name
	}
	if dir := literalDir(pattern); dir != "." {
		return strings.TrimPrefix(name, dir+"/")
	}
	return name
}

// literalDir returns the directories before the first part that is a pattern,
// or the directory of a path that is none.
func literalDir(pattern string) string {
	parts := strings.Split(pattern, "/")
	for i, part := range parts {
		if isPattern(part) {
			return path.Join(append([]string{"."}, parts[:i]...)...)
		}
	}
	return path.Dir(pattern)
}

// ukiName returns the base name of a UKI without .efi.
func ukiName(p string) string {
	base := path.Base(p)
	if strings.EqualFold(path.Ext(base), ".efi") {
		base = base[:len(base)-len(".efi")]
	}
	return escape(base)
}

// escape writes a path so that it can stand in a record name. A byte that is
// not printable ASCII, and each of % ! ?, becomes % and two upper-case hex
// digits, as does an @ at the head of a part: nothing on a disk can look like
// !absent, ?c= or @list. Unescape is the inverse.
func escape(p string) string {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		c := p[i]
		head := i == 0 || p[i-1] == '/'
		if c < 0x21 || c > 0x7e || c == '%' || c == '!' || c == '?' || (c == '@' && head) {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// Unescape returns the path that a record name's path part stands for. A
// shortened path (see docs/formats.md, record names) is an error.
func Unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+3 > len(s) {
			return "", fmt.Errorf("path %q: %% without two digits", s)
		}
		v, err := hex.DecodeString(s[i+1 : i+3])
		if err != nil {
			return "", fmt.Errorf("path %q: shortened or malformed: %w", s, err)
		}
		b.Write(v)
		i += 2
	}
	if escape(b.String()) != s {
		return "", fmt.Errorf("path %q is not an escaped path", s)
	}
	return b.String(), nil
}

// longestSuffix is room for ?c=FORM and !absent behind a path.
const longestSuffix = len("?c=squashfs1") + len(measure.Absent)

// recordName returns prefix/escaped path?c=form. A name that would be too long
// has the path cut and ends in %~ and the SHA-256 of the path's bytes; full is
// then the path, to be kept, so that the digest leads to it.
func recordName(prefix, p string, form canon.Form) (name string, full []byte) {
	item := escape(p)
	room := measure.MaxName - longestSuffix - len(prefix) - 1
	if len(item) > room {
		sum := sha256.Sum256([]byte(p))
		item = shorten(item, room-2-2*sha256.Size) + "%~" + hex.EncodeToString(sum[:])
		full = []byte(p)
	}
	name = prefix + "/" + item
	if form != "" {
		name += "?c=" + string(form)
	}
	return name, full
}

// shorten cuts an escaped path to n bytes, not inside an escape.
func shorten(item string, n int) string {
	item = item[:n]
	if i := strings.LastIndexByte(item, '%'); i >= 0 && i > n-3 {
		item = item[:i]
	}
	return item
}
