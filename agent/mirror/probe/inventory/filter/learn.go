package filter

import (
	"slices"
	"strconv"

	"golang.org/x/net/bpf"
)

// learn adds what a test's outcome says about the packet. It tells false where
// no packet can have that outcome.
func (s *state) learn(test bpf.JumpTest, with value, outcome bool) bool {
	test, outcome = plain(test, outcome)
	if s.a.name == "" && with.name == "" {
		return compare(test, s.a.k, with.k) == outcome
	}
	if with.name != "" {
		return true // a comparison of two unknowns says nothing that is kept
	}
	name, k := s.a.name, with.k-s.a.k
	switch {
	case test == bpf.JumpEqual && outcome:
		return s.is(name, k)
	case test == bpf.JumpEqual:
		return s.isNot(name, k)
	case s.a.k != 0:
		return true // sums may wrap
	case test == bpf.JumpGreaterThan && !outcome:
		s.atMost(name, k)
	case test == bpf.JumpGreaterOrEqual && !outcome:
		if k == 0 {
			return false
		}
		s.atMost(name, k-1)
	}
	return true
}

// plain turns the tests that the assembler knows besides into those of the kernel.
func plain(test bpf.JumpTest, outcome bool) (bpf.JumpTest, bool) {
	switch test {
	case bpf.JumpNotEqual:
		return bpf.JumpEqual, !outcome
	case bpf.JumpLessThan:
		return bpf.JumpGreaterOrEqual, !outcome
	case bpf.JumpLessOrEqual:
		return bpf.JumpGreaterThan, !outcome
	case bpf.JumpBitsNotSet:
		return bpf.JumpBitsSet, !outcome
	}
	return test, outcome
}

func compare(test bpf.JumpTest, a, k uint32) bool {
	switch test {
	case bpf.JumpEqual:
		return a == k
	case bpf.JumpGreaterThan:
		return a > k
	case bpf.JumpGreaterOrEqual:
		return a >= k
	}
	return a&k != 0
}

func (s *state) is(name string, k uint32) bool {
	if slices.Contains(s.not[name], k) {
		return false
	}
	if size, at, ok := absolute(name); ok {
		return s.bytesAre(size, at, k)
	}
	if was, known := s.equal[name]; known && was != k {
		return false
	}
	s.equal[name] = k
	if name == typeName && k <= 0xffff {
		s.etype = int(k)
	}
	return true
}

// bytesAre keeps the bytes of a plain load, first byte highest.
func (s *state) bytesAre(size int, at, k uint32) bool {
	if size < 4 && k>>(8*size) != 0 {
		return false
	}
	for i := range size {
		b := byte(k >> (8 * (size - 1 - i)))
		if was, known := s.bytes[at+uint32(i)]; known && was != b {
			return false
		}
		s.bytes[at+uint32(i)] = b
	}
	return true
}

func (s *state) isNot(name string, k uint32) bool {
	if was, known := s.known(name); known && was == k {
		return false
	}
	s.not[name] = append(s.not[name], k)
	return true
}

func (s *state) atMost(name string, k uint32) {
	if was, known := s.most[name]; !known || k < was {
		s.most[name] = k
	}
}

// known is the value that a name has on this path.
func (s *state) known(name string) (uint32, bool) {
	size, at, ok := absolute(name)
	if !ok {
		k, known := s.equal[name]
		return k, known
	}
	k := uint32(0)
	for i := range size {
		b, known := s.bytes[at+uint32(i)]
		if !known {
			return 0, false
		}
		k = k<<8 | uint32(b)
	}
	return k, true
}

// absolute reads the name of a plain load: its size and its offset.
func absolute(name string) (size int, at uint32, ok bool) {
	if len(name) < 2 {
		return 0, 0, false
	}
	size = map[byte]int{'b': 1, 'h': 2, 'w': 4}[name[0]]
	n, err := strconv.ParseUint(name[1:], 10, 31)
	return size, uint32(n), size != 0 && err == nil
}
