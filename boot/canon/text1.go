package canon

import (
	"regexp"
	"strings"
)

// text1 is the form of a text file of unknown grammar: a script, fstab, a
// crontab, authorized_keys, a unit. All that can take effect is kept, comments
// too ("#!" takes effect).
//
// Dropped: the byte order mark, "\r" and blanks at the end of a line, empty
// lines at the end of the file.
//
// Secrets: in NAME=value and NAME: value, where NAME ends in a word that names
// a secret and nothing else, the value is masked if it is one inert literal. A
// value with anything that a shell could act on stays, because code could hide
// in a masked one. A line that may hold a secret in any other way is measured
// as it is, and the whole text is not shown.
func text1(in []byte) (Text, error) {
	ls, err := lines(in)
	if err != nil {
		return Text{}, err
	}
	t := Text{Form: Text1, Public: true}
	for i, l := range ls {
		var clean bool
		ls[i], clean = maskAssignments(l)
		t.Public = t.Public && clean
	}
	for len(ls) > 0 && ls[len(ls)-1] == "" {
		ls = ls[:len(ls)-1]
	}
	t.Bytes = join(ls)
	return t, nil
}

// Patterns of text1, all without regard to case.
var (
	// assignment is NAME, separator and value. In a shell "NAME= x" runs x, so
	// blanks after = count only if there are blanks before.
	assignment = regexp.MustCompile(`(?i)([a-z0-9_.-]*(?:password|passphrase|preshared[-_]?key|private[-_]?key|(?:api|auth|access|wpa|wep|md5)[-_]?key|` +
		`(?:^|[^a-z0-9])(?:[a-z0-9_.-]*[_.-])?(?:passwd|pass|pwd|psk|secret|token|community|key)))(=|\s+=\s*|\s*:[ \t]+)(\S+)`)
	// inert is a value that means nothing but itself: no path, no list, nothing
	// that a shell acts on.
	inert = regexp.MustCompile(`^(?:[A-Za-z0-9+=_^-][A-Za-z0-9._+/=^-]*|"[A-Za-z0-9+=_^-][A-Za-z0-9._+/=^-]*"|'[A-Za-z0-9+=_^-][A-Za-z0-9._+/=^-]*')$`)
	// ambiguous is a NAME before a colon that also has other meanings, as
	// "passwd: files" has in nsswitch.conf.
	ambiguous = regexp.MustCompile(`(?i)(?:passwd|pass|community|key)$`)
	// suspect finds what may hold a secret outside of an assignment.
	suspect = regexp.MustCompile(`(?i)passw|passphrase|secret|community|credential|authorization|bearer |private[-_ ]?key|preshared|pre-shared|://[^/\s]*:[^/\s]*@|` +
		`(?:^|[^a-z0-9])(?:[a-z0-9_.-]*[_.-])?(?:pass|pwd|psk|token|key)["']?(?:\s|[:=+]|$)`)
)

// textStems are parts of words without one of which no pattern above matches:
// looking for them is much faster.
var textStems = []string{"pass", "pwd", "psk", "secret", "token", "community", "key", "credential", "authorization", "bearer", "preshared", "pre-shared", "://"}

// mentions tells whether a line has one of stems in it, in any case.
func mentions(l string, stems []string) bool {
	l = strings.ToLower(l)
	for _, s := range stems {
		if strings.Contains(l, s) {
			return true
		}
	}
	return false
}

// maskAssignments masks the values of secret assignments of a line. clean is
// false if the line may still hold a secret.
func maskAssignments(l string) (masked string, clean bool) {
	if !mentions(l, textStems) {
		return l, true
	}
	var b strings.Builder
	clean = true
	for {
		m := assignment.FindStringSubmatchIndex(l)
		if m == nil {
			b.WriteString(l)
			return b.String(), clean && !suspect.MatchString(l)
		}
		name, separator, value := l[m[2]:m[3]], l[m[4]:m[5]], l[m[6]:m[7]]
		clean = clean && !suspect.MatchString(l[:m[2]])
		b.WriteString(l[:m[3]])
		switch {
		case separator+value == Mask:
			b.WriteString(Mask)
		case strings.Contains(separator, ":") && ambiguous.MatchString(name), !inert.MatchString(value):
			b.WriteString(separator + value)
			clean = false
		default:
			b.WriteString(Mask)
		}
		l = l[m[7]:]
	}
}

// MayHoldSecret tells whether text has what text1 would mask, or would not show.
func MayHoldSecret(in []byte) bool {
	ls, err := lines(in)
	if err != nil {
		return true
	}
	for _, l := range ls {
		if masked, clean := maskAssignments(l); !clean || masked != l {
			return true
		}
	}
	return false
}
