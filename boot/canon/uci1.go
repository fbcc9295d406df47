package canon

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// uci1 is the form of an OpenWrt UCI file. It is itself a UCI file that means
// the same, one statement a line, each value in single quotes, each line with
// the section it belongs to in a comment, so that a line can be read alone:
//
//	config interface 'lan' # lan
//		option proto 'static' # lan
//	config rule # rule@0
//		list port '80' # rule@0
//
// Dropped: comments, blanks, the kind of quotes. Options are sorted by name,
// the values of a list keep their order, sections keep theirs. The number of
// an anonymous section counts the sections of its type from 0.
//
// Secrets: the value of an option whose name is a secret word is masked.
//
// Not understood, and so Raw: abbreviated keywords, several statements in a
// line, line breaks inside a value, an option or a section that stands twice.
func uci1(in []byte) (Text, error) {
	ls, err := lines(in)
	if err != nil {
		return Text{}, err
	}
	if strings.HasPrefix(string(in), "\xef\xbb\xbf") {
		return Text{}, errors.New("byte order mark")
	}
	var f uciFile
	for i, l := range ls {
		if err := f.line(l); err != nil {
			return Text{}, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return Text{Form: UCI1, Bytes: join(f.text()), Public: true}, nil
}

type uciFile struct {
	pkg      string
	sections []*uciSection
	count    map[string]int  // sections by type
	named    map[string]bool // names of sections
}

type uciSection struct {
	typ, name string
	anonymous bool
	options   []uciOption
}

type uciOption struct {
	keyword, name string // keyword is option or list
	values        []string
}

// line reads one statement.
func (f *uciFile) line(l string) error {
	words, err := uciWords(l)
	if err != nil || len(words) == 0 {
		return err
	}
	switch {
	case words[0] == "package" && len(words) == 2 && f.pkg == "" && len(f.sections) == 0 && uciName(words[1]):
		f.pkg = words[1]
		return nil
	case words[0] == "config" && (len(words) == 2 || len(words) == 3):
		return f.section(words[1:])
	case (words[0] == "option" || words[0] == "list") && len(words) == 3 && len(f.sections) > 0 && uciName(words[1]):
		return f.sections[len(f.sections)-1].add(words[0], words[1], words[2])
	}
	return fmt.Errorf("statement %q with %d words is not understood here", words[0], len(words)-1)
}

func (f *uciFile) section(words []string) error {
	s := &uciSection{typ: words[0], anonymous: len(words) == 1}
	if f.count == nil {
		f.count, f.named = map[string]int{}, map[string]bool{}
	}
	if s.anonymous {
		s.name = fmt.Sprintf("%s@%d", s.typ, f.count[s.typ])
	} else {
		s.name = words[1]
	}
	if !uciName(s.typ) || (!s.anonymous && !uciName(s.name)) {
		return fmt.Errorf("section type %q, name %q: need letters, digits, _ and -", s.typ, s.name)
	}
	if f.named[s.name] {
		return fmt.Errorf("section %q stands twice", s.name)
	}
	f.named[s.name] = true
	f.count[s.typ]++
	f.sections = append(f.sections, s)
	return nil
}

// maxOptions bounds the options of a section, so that no input costs more than
// linear time.
const maxOptions = 1024

func (s *uciSection) add(keyword, name, value string) error {
	if len(s.options) > maxOptions {
		return fmt.Errorf("section %s has more than %d options", s.name, maxOptions)
	}
	i := slices.IndexFunc(s.options, func(o uciOption) bool { return o.name == name })
	if i < 0 {
		s.options = append(s.options, uciOption{keyword, name, []string{value}})
		return nil
	}
	o := &s.options[i]
	if keyword != "list" || o.keyword != "list" {
		return fmt.Errorf("option %q stands twice in section %s", name, s.name)
	}
	o.values = append(o.values, value)
	return nil
}

// text returns the lines of the canonical file.
func (f *uciFile) text() []string {
	var ls []string
	if f.pkg != "" {
		ls = append(ls, "package "+uciQuote(f.pkg))
	}
	for _, s := range f.sections {
		ls = append(ls, s.text()...)
	}
	return ls
}

func (s *uciSection) text() []string {
	head := "config " + s.typ
	if !s.anonymous {
		head += " " + uciQuote(s.name)
	}
	ls := []string{head + " # " + s.name}
	slices.SortFunc(s.options, func(a, b uciOption) int { return strings.Compare(a.name, b.name) })
	for _, o := range s.options {
		for _, v := range o.values {
			if uciSecret(o.name) {
				v = Mask
			}
			ls = append(ls, "\t"+o.keyword+" "+o.name+" "+uciQuote(v)+" # "+s.name)
		}
	}
	return ls
}

// Names of options that hold a secret: whole, ends and parts of names in lower
// case, with _ for -.
var (
	uciSecretNames = []string{"key", "key1", "key2", "key3", "key4", "pin", "pincode", "puk", "pass", "pwd", "community"}
	uciSecretEnds  = []string{"_pass", "_pwd", "_pin", "_key"}
	uciSecretParts = []string{"password", "passwd", "passphrase", "secret", "privatekey", "presharedkey", "psk", "apikey", "authkey", "md5key", "token"}
	uciPublicKeys  = []string{"public_key", "pubkey", "host_key", "peer_key"}
)

// uciSecret tells whether an option's name is that of a secret.
func uciSecret(name string) bool {
	n := strings.ToLower(strings.ReplaceAll(name, "-", "_"))
	if slices.Contains(uciPublicKeys, n) {
		return false
	}
	return slices.Contains(uciSecretNames, n) ||
		slices.ContainsFunc(uciSecretEnds, func(e string) bool { return strings.HasSuffix(n, e) }) ||
		slices.ContainsFunc(uciSecretParts, func(p string) bool { return strings.Contains(n, p) })
}

func uciName(s string) bool {
	if s == "" {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

func uciQuote(v string) string { return "'" + strings.ReplaceAll(v, "'", `'\''`) + "'" }
