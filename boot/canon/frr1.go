package canon

import (
	"regexp"
	"strings"
)

// frr1 is the form of FRR's frr.conf and of router configuration like it: one
// command a line, order kept, the blanks at the head of a line kept.
//
// Dropped: empty lines, lines whose first character is ! or # (comments, and
// with them the time of the last change), "frr version …" and "version …", and
// blanks at the end of a line.
//
// Secrets: what follows the word that announces one, to the end of the line.
func frr1(in []byte) (Text, error) {
	ls, err := lines(in)
	if err != nil {
		return Text{}, err
	}
	kept := ls[:0]
	for _, l := range ls {
		if !frrDropped(l) {
			kept = append(kept, frrMask(l))
		}
	}
	t := Text{Form: FRR1, Bytes: join(kept), Public: true}
	return t, nil
}

var frrVersion = regexp.MustCompile(`^(?:frr version|version) \S`)

func frrDropped(l string) bool {
	s := strings.TrimLeft(l, " \t")
	return s == "" || s[0] == '!' || s[0] == '#' || frrVersion.MatchString(l)
}

// frrSecret finds the words after which a secret stands. Plain "community" is
// a BGP community and none; "authentication message-digest" announces none.
var frrSecret = regexp.MustCompile(`(?i)(?:^|\s)(?:` +
	`\S*password(?: (?:\d+|clear|md5|encrypted))?` +
	`|\S*secret(?: \d+)?` +
	`|key-string(?: \d+)?` +
	`|authentication-key(?: \d+)?` +
	`|message-digest-key \d+ \S+(?: \d+)?` +
	`|authentication (?:string|text)` +
	`|(?:vrrp|standby) \d+ authentication` +
	`|snmp-server (?:community|user \S+|host \S+)` +
	`|community-string` +
	`|\S*passphrase|\S*psk|\S*pre-shared-key|\S*private-key|\S*api-key|\S*token` +
	`)(\s+)\S`)

// frrKey finds "key", an optional kind, and the secret; frrNoKey is a key chain
// or the number of a key, which are none.
var (
	frrKey   = regexp.MustCompile(`(?i)(?:^|\s)key(\s+)\S`)
	frrNoKey = regexp.MustCompile(`(?i)(?:^|\s)key\s+(?:chain\s+\S+|\d+)$`)
)

var frrStems = []string{"pass", "secret", "key", "authentication", "snmp-server", "community-string", "psk", "token"}

func frrMask(l string) string {
	if !mentions(l, frrStems) {
		return l
	}
	m := frrSecret.FindStringSubmatchIndex(l)
	if k := frrKey.FindStringSubmatchIndex(l); k != nil && !frrNoKey.MatchString(l) && (m == nil || k[2] < m[2]) {
		m = k
	}
	if m == nil {
		return l
	}
	return l[:m[2]] + " " + Mask
}
