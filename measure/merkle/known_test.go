package merkle

// known are the roots over nonces(n), the SHA-256 of 0, 1, … as u32be. They
// were computed by another program, in another language.
var known = map[int]string{
	1:    "290146fbce1868e0bcdffe96e5f122aa6f76321dde2959c0d3bcfd589a824f63",
	2:    "d21df06b4104af0dc9aa180780c6cadbb3ae56c231bf4efcbfe9583256f67080",
	3:    "9d8d4c039d8ea1437af5c8716fbd39a95afb79413e10dbedcdb414fa757e3928",
	5:    "40f2b83238269fd0cd6294fabf655e4c592af1a001740338cd868ab8a422d6f6",
	4096: "2af44e531571d55eb4efd620a9e07b21aa5b1bb4b79cbf5709d9cfb1cbaa39e8",
}
