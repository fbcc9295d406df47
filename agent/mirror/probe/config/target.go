package config

import "bytes"

// target is what an extension of iptables does to packets.
type target struct {
	words    string
	harmless bool // it changes where packets go, as people say; it copies nothing
}

// targets are the extensions of iptables that copy or divert
// (iptables-extensions(8)).
var targets = map[string]target{
	"TEE": {words: "iptables TEE"}, "NFLOG": {words: "iptables NFLOG"}, "ULOG": {words: "iptables ULOG"}, "NFQUEUE": {words: "iptables NFQUEUE"},
	"TPROXY": {"iptables TPROXY", true}, "DNAT": {"iptables DNAT", true}, "SNAT": {"iptables SNAT", true},
	"REDIRECT": {"iptables REDIRECT", true}, "MASQUERADE": {"iptables MASQUERADE", true}, "NETMAP": {"iptables NETMAP", true},
	"CLUSTERIP": {"iptables CLUSTERIP", true}, "dnat": {"ebtables dnat", true}, "snat": {"ebtables snat", true}, "redirect": {"ebtables redirect", true},
}

// textOf is a text up to its first NUL.
func textOf(b []byte) string {
	text, _, _ := bytes.Cut(b, []byte{0})
	return string(bytes.ToValidUTF8(text, []byte("?")))
}
