package canon_test

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"waxseal/boot/canon"
)

var update = flag.Bool("update", false, "write the wanted texts of testdata/golden anew")

// Each file of testdata/golden has a form, an input and the text that is
// wanted: a line "FORM shown" or "FORM hidden", then the bytes.
func TestFormsAreAsTheyWereReleased(t *testing.T) {
	cases, err := filepath.Glob("testdata/golden/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range cases {
		t.Run(filepath.Base(file), func(t *testing.T) { golden(t, file) })
	}
}

func golden(t *testing.T, file string) {
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	form, in, want := canon.Form(strings.TrimSpace(string(ar.Files[0].Data))), ar.Files[1].Data, &ar.Files[2]
	text := canon.Of(form, in)
	got := fmt.Sprintf("%s %s\n%s", text.Form, map[bool]string{true: "shown", false: "hidden"}[text.Public], text.Bytes)
	if *update {
		want.Data = []byte(got)
		if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got != string(want.Data) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want.Data)
	}
	if text.Public && bytes.Contains(text.Bytes, []byte("SECRET")) {
		t.Errorf("a secret is shown:\n%s", text.Bytes)
	}
	checkIdempotent(t, form, in)
}

func checkIdempotent(t *testing.T, form canon.Form, in []byte) {
	t.Helper()
	once := canon.Of(form, in)
	if once.Form != form {
		if !bytes.Equal(once.Bytes, in) || once.Form != canon.Raw || once.Public || once.Why == nil {
			t.Errorf("%s: fallback %+v is not the input as it is", form, once)
		}
		return
	}
	twice := canon.Of(form, once.Bytes)
	if twice.Form != form || !bytes.Equal(twice.Bytes, once.Bytes) || twice.Public != once.Public {
		t.Errorf("%s: canonical form of\n%s\nis %s\n%s\n(%v)", form, once.Bytes, twice.Form, twice.Bytes, twice.Why)
	}
}

// secrets are lines with the word SECRET in a place where a secret stands.
var secrets = map[canon.Form][]string{
	canon.Text1: {
		"password=SECRET", "PASSWORD = SECRET", "db_password: SECRET", "export MYSQL_PWD=SECRET", "wpa_passphrase=SECRET", "psk=SECRET",
		"psk=\"SECRET\"", "Environment=TOKEN=SECRET", "credentials,password=SECRET,ro", "private_key=SECRET", "PrivateKey = SECRET", "PresharedKey=SECRET",
		"api-key: SECRET", "community=SECRET", "client_secret='SECRET words'", "luks.passphrase=SECRET", "key=SECRET", " key: SECRET",
		"machine x login y password SECRET", "enable secret SECRET", "rocommunity SECRET", "password=SECRET$x", "password='SECRET", "--password SECRET", "-----BEGIN OPENSSH PRIVATE KEY-----\nSECRET",
		"https://user:SECRET@example.net/", "Authorization: Basic SECRET", "chpasswd <<< root:SECRET", `"password": "SECRET"`, `'secret' => 'SECRET'`, "PASSWORD+=SECRET", "password =\tSECRET", "auth_key=SECRET", "md5-key=SECRET",
	},
	canon.UCI1: {
		"config a b\noption key SECRET", "config a b\noption password 'SECRET'", "config a b\noption psk \"SECRET\"", "config a b\noption private_key SECRET",
		"config a b\nlist preshared_key SECRET", "config a b\noption sae_password SECRET", "config a b\noption wpa_psk SECRET", "config a b\noption key1 SECRET",
		"config a b\noption auth_secret SECRET", "config a b\noption community SECRET", "config a b\noption pincode SECRET", "config a b\noption api_token SECRET", "config a b\noption 'Passwd' SECRET", "config a b\noption identity_pass SECRET", "config a b\noption ipsec-secret SECRET",
	},
	canon.FRR1: {
		"password SECRET", "enable password SECRET", "enable password 8 SECRET", "enable secret SECRET", "enable secret 5 SECRET", " neighbor 192.0.2.1 password SECRET", " neighbor PEERS password 7 SECRET",
		" ip ospf message-digest-key 1 md5 SECRET", " ip ospf message-digest-key 12 md5 7 SECRET", " ip ospf authentication-key SECRET", " area-password clear SECRET", " domain-password md5 SECRET", " isis password clear SECRET", "  key-string SECRET", "  key-string 7 SECRET", " ip rip authentication string SECRET", "snmp-server community SECRET ro",
		"username u password 0 SECRET", "username u secret 9 SECRET", "radius-server host 192.0.2.1 key SECRET", "radius-server key 7 SECRET", "tacacs-server key SECRET", "tacacs-server host 192.0.2.9 single-connection key 7 SECRET", "crypto isakmp key SECRET address 192.0.2.1", " pre-shared-key SECRET", " neighbor 192.0.2.2 password md5 SECRET", " wpa-psk ascii 0 SECRET", "ntp authentication-key 1 md5 SECRET", " authentication text SECRET", " vrrp 1 authentication SECRET", " standby 1 authentication SECRET", " key 7 SECRET", "snmp-server user u g v3 auth sha SECRET priv aes 128 SECRET", "snmp-server host 192.0.2.1 version 2c SECRET", " ppp chap password 7 SECRET", " tcp-ao keychain-password SECRET",
	},
}

func TestNoSecretComesOut(t *testing.T) {
	for form, ins := range secrets {
		for _, in := range ins {
			text := canon.Of(form, []byte(in+"\n"))
			if text.Public && bytes.Contains(text.Bytes, []byte("SECRET")) {
				t.Errorf("%s: %q is shown as %q", form, in, text.Bytes)
			}
			if form != canon.Text1 && text.Form == form && bytes.Contains(text.Bytes, []byte("SECRET")) {
				t.Errorf("%s: %q is measured as %q: a secret can be guessed from the digest", form, in, text.Bytes)
			}
			checkIdempotent(t, form, []byte(in+"\n"))
		}
	}
}

// kept are pairs of inputs that mean different things.
var kept = map[canon.Form][][2]string{
	canon.Text1: {
		{"a", "b"}, {"a\nb", "b\na"}, {"# a", "# b"}, {" a", "a"}, {"a b", "a  b"}, {"a\n\nb", "a\nb"}, {"PASSWORD=$(a)", "PASSWORD=$(b)"}, {"password=`a`", "password=`b`"}, {"passwd root", "passwd evil"},
		{"PASSWORD=x; a", "PASSWORD=x; b"}, {"PASSWORD=x a", "PASSWORD=x b"}, {"PASSWORD=a|sh", "PASSWORD=b|sh"}, {"MONKEY=a", "MONKEY=b"}, {"PASSWORD=x\na", "PASSWORD=x\nb"}, {"a", "ab"}, {"ssh-ed25519 AAAA a@b", "ssh-ed25519 AAAB a@b"}, {"PASSWORD=", "PASSWORD=x"},
		{"PASSWORD=${IFS%a}", "PASSWORD=${IFS%b}"}, {"PASSWORD='x'$(a)", "PASSWORD='x'$(b)"}, {"PASSWORD=x>/etc/a", "PASSWORD=x>/etc/b"}, {"SECRET=\"$(a)\"", "SECRET=\"$(b)\""}, {"token: |\n a", "token: |\n b"},
		{"PASSWORD= a", "PASSWORD= b"}, {"passwd: files", "passwd: ldap"}, {"bypass=a", "bypass=b"}, {"LoadCredential=a:/b", "LoadCredential=a:/c"}, {"PASSWORD=~a", "PASSWORD=~b"}, {"HostKey=a", "HostKey=b"}, {"PASSWORD=a\\", "PASSWORD=b\\"}, {"TOKEN=a&&b", "TOKEN=a&&c"}, {"password:a", "password:b"}, {"password=x,nosuid", "password=x,suid"}, {"PASSWORD=/bin/a", "PASSWORD=/bin/b"},
	},
	canon.UCI1: {
		{"config a b", "config a c"}, {"config a", "config b"}, {"config a b\noption x 1", "config a b\noption x 2"}, {"config a b\noption x 1", "config a b\nlist x 1"}, {"config a b\nlist x 1\nlist x 2", "config a b\nlist x 2\nlist x 1"},
		{"config a\noption x 1\nconfig a\noption x 2", "config a\noption x 2\nconfig a\noption x 1"}, {"config a b\nconfig a c", "config a c\nconfig a b"}, {"config a b\noption x ' 1'", "config a b\noption x 1"}, {"config a b\noption x '#1'", "config a b\noption x ''"},
		{"config a b\noption x \"a'b\"", "config a b\noption x 'ab'"}, {"config a b\nlist x 1\nlist x 2", "config a b\nlist x '1 2'"}, {"package p\nconfig a b", "config a b"}, {"config a b\noption x 'a'\noption y 'b'", "config a b\noption x 'a # b'\noption y 'b'"}, {"config a a_0", "config a"},
		{"config a b\nlist x 1\nlist y 2", "config a b\nlist y 1\nlist x 2"}, {"config a b\noption x '\\'", "config a b\noption x '\\\\'"},
	},
	canon.FRR1: {
		{"router bgp 1", "router bgp 2"}, {"a\nb", "b\na"}, {" a", "a"}, {"set community 1:1", "set community 1:2"}, {"neighbor 192.0.2.1 password a", "neighbor 192.0.2.2 password a"}, {"neighbor 192.0.2.1 password a", "neighbor 192.0.2.1"}, {"ip ospf message-digest-key 1 md5 a", "ip ospf message-digest-key 2 md5 a"},
		{"no password x", "password x"}, {"frr defaults traditional", "frr defaults datacenter"}, {"a ! b", "a"}, {" ip ospf authentication message-digest", " ip ospf authentication"}, {"key chain a", "key chain b"}, {" key 1", " key 2"}, {" version 1", " version 2"},
	},
}

func TestWhatIsKeptIsKeptApart(t *testing.T) {
	for form, pairs := range kept {
		for _, p := range pairs {
			a, b := canon.Of(form, []byte(p[0]+"\n")), canon.Of(form, []byte(p[1]+"\n"))
			if a.Form == b.Form && bytes.Equal(a.Bytes, b.Bytes) {
				t.Errorf("%s: %q and %q are both %q", form, p[0], p[1], a.Bytes)
			}
		}
	}
}

// dropped are pairs of inputs that mean the same.
var dropped = map[canon.Form][][2]string{
	canon.Text1: {{"a", "a \t"}, {"a", "a\r"}, {"a", "a\n\n"}, {"a", "\xef\xbb\xbfa"}, {"password=x", "password=y"}},
	canon.UCI1: {
		{"config a b", "# c\n\nconfig 'a' \"b\" # d\r"}, {"config a b\noption x 1\noption y 2", "config a b\n option y 2\n\toption 'x' \"1\""}, {"config a b\noption x 'a b'", "config a b\noption x a\\ b"}, {"config a b\noption x \"it's\"", "config a b\noption x 'it'\\''s'"}, {"config a b\noption key x", "config a b\noption key y"},
	},
	canon.FRR1: {{"a", "! c\na \n!\n"}, {"a", "frr version 9\na"}, {"password a", "password b"}},
}

func TestWhatIsDroppedMakesNoDifference(t *testing.T) {
	for form, pairs := range dropped {
		for _, p := range pairs {
			a, b := canon.Of(form, []byte(p[0]+"\n")), canon.Of(form, []byte(p[1]+"\n"))
			if a.Form != form || !bytes.Equal(a.Bytes, b.Bytes) {
				t.Errorf("%s: %q is %s %q, %q is %s %q", form, p[0], a.Form, a.Bytes, p[1], b.Form, b.Bytes)
			}
		}
	}
}

func TestUnknownSyntaxIsRawAndNeverShown(t *testing.T) {
	for form, ins := range map[canon.Form][]string{
		canon.Text1: {"\xff", "a\x00b", "a\x1b[2J", "a\rb", "\u202eevil", "\u2028"},
		canon.FRR1:  {"\xff", "a\x1b"},
		canon.UCI1: {
			"option x 1", "config", "config a b c", "config a b\noption x", "config a b\noption x 1 2", "c a b", "config a b\no x 1", "config a b; option x 1", "config a b\noption x a#b", "config a b\noption x 'a", "config a b\noption x \"a", "config a b\noption x a\\",
			"config a b\noption x 'a\nb'", "config a b\nconfig a b", "config a b\noption x 1\nlist x 2", "config a @0", "config a 'b c'", "\xef\xbb\xbfconfig a b", "package p\npackage p", "config a b\npackage p", "config a ''",
		},
		canon.List1: {"x", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", strings.Repeat("00", 32) + " a b", strings.Repeat("AA", 32) + " a", strings.Repeat("00", 32) + " a\n" + strings.Repeat("00", 32) + " a"},
	} {
		for _, in := range ins {
			if text := canon.Of(form, []byte(in+"\n")); text.Form != canon.Raw || text.Public || text.Why == nil || string(text.Bytes) != in+"\n" {
				t.Errorf("%s: %q is %s %q, shown %v, why %v", form, in, text.Form, text.Bytes, text.Public, text.Why)
			}
		}
		big := bytes.Repeat([]byte("a\n"), canon.MaxSize)
		if text := canon.Of(form, big); text.Form != canon.Raw {
			t.Errorf("%s: %d bytes are %s", form, len(big), text.Form)
		}
	}
}

func TestListReadsBack(t *testing.T) {
	es := []canon.Entry{{sha256.Sum256([]byte("b")), "startup/b"}, {sha256.Sum256([]byte("a")), "startup/a!absent"}}
	back, err := canon.ParseList(canon.List(es).Bytes)
	if err != nil || len(back) != 2 || back[0] != es[1] || back[1] != es[0] {
		t.Errorf("list %v, error %v", back, err)
	}
	if back, err := canon.ParseList(canon.List(nil).Bytes); err != nil || len(back) != 0 {
		t.Errorf("empty list: %v, %v", back, err)
	}
}

// FuzzCanon: no panic; each form is idempotent; what is not understood comes
// back as it is.
func FuzzCanon(f *testing.F) {
	for form, ins := range secrets {
		for _, in := range ins {
			f.Add(string(form), []byte(in))
		}
	}
	f.Fuzz(func(t *testing.T, form string, in []byte) {
		if !canon.Form(form).Known() || form == string(canon.Raw) {
			return
		}
		checkIdempotent(t, canon.Form(form), in)
	})
}

func BenchmarkText1(b *testing.B) {
	in := bytes.Repeat([]byte("ip link set dev eth0 up # an ordinary line\n"), 1000)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		canon.Of(canon.Text1, in)
	}
}
