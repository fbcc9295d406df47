package merkle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// nonces returns n different nonces.
func nonces(n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32(nil, uint32(i)))
		out[i] = sum[:]
	}
	return out
}

func tree(t testing.TB, nonces [][]byte) Tree {
	t.Helper()
	tr, err := New(nonces)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// sizes are those around the powers of two, where the shape changes.
func sizes() []int {
	var all []int
	for n := 1; n <= 40; n++ {
		all = append(all, n)
	}
	return append(all, 63, 64, 65, 1000, MaxSize-1, MaxSize)
}

func TestEachNonceProvesUnderItsTree(t *testing.T) {
	for _, size := range sizes() {
		all := nonces(size)
		tr := tree(t, all)
		want := tr.Commitment()
		if len(want) != CommitmentSize || len(want) > MaxNonce || !IsCommitment(want) {
			t.Fatalf("size %d: commitment of %d bytes", size, len(want))
		}
		for i := 0; i < size; i += 1 + size/200 {
			p := tr.Proof(i)
			if err := p.Check(); err != nil || len(p.Path) > MaxPath {
				t.Fatalf("nonce %d of %d: path of %d bytes: %v", i, size, len(p.Path), err)
			}
			if got, err := p.Commitment(all[i]); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("nonce %d of %d: %x, %v: want %x", i, size, got, err, want)
			}
		}
	}
}

// The root, from above, as RFC 6962, section 2.1, defines it.
func TestTreeHasTheShapeOfRFC6962(t *testing.T) {
	var root func(first int, nonces [][]byte) hash
	root = func(first int, nonces [][]byte) hash {
		if len(nonces) == 1 {
			return leaf(first, nonces[0])
		}
		k := 1
		for 2*k < len(nonces) {
			k *= 2
		}
		left, right := root(first, nonces[:k]), root(first+k, nonces[k:])
		return node(left[:], right[:])
	}
	for _, size := range sizes() {
		all := nonces(size)
		if want := commitment(size, root(0, all)); !bytes.Equal(tree(t, all).Commitment(), want) {
			t.Errorf("size %d has another root", size)
		}
	}
}

func TestNoNonceProvesUnderAnotherIndexOrSize(t *testing.T) {
	for size := 1; size <= 20; size++ {
		all := nonces(size)
		all[size-1] = all[0] // even one that was sent twice has two leaves
		tr := tree(t, all)
		want := tr.Commitment()
		for i := range size {
			good := tr.Proof(i)
			for s := range uint32(41) {
				for at := range uint32(41) {
					p := Proof{Index: at, Size: s, Path: good.Path}
					got, err := p.Commitment(all[i])
					if same := at == good.Index && s == good.Size; same != (err == nil && bytes.Equal(got, want)) {
						t.Errorf("nonce %d of %d under index %d of %d: %x, %v", i, size, at, s, got, err)
					}
				}
			}
		}
	}
}

func TestNoOtherNonceProves(t *testing.T) {
	all := nonces(21)
	tr := tree(t, all)
	for i, own := range all {
		p := tr.Proof(i)
		for j, other := range all {
			got, err := p.Commitment(other)
			if (i == j) != (err == nil && bytes.Equal(got, tr.Commitment())) {
				t.Errorf("nonce %d by the path of %d: %v", j, i, err)
			}
		}
		for _, other := range [][]byte{own[:31], append(slices.Clone(own), 0), own[1:]} {
			if got, _ := p.Commitment(other); bytes.Equal(got, tr.Commitment()) {
				t.Errorf("a nonce of %d bytes proves as nonce %d", len(other), i)
			}
		}
	}
}

// A nonce has room for the two hashes under an inner node. It must not stand
// for that node in a smaller tree.
func TestNoNodeProvesAsALeaf(t *testing.T) {
	tr := tree(t, nonces(4))
	leaves, want := tr.levels[0], tr.Commitment()
	posed := append(slices.Clone(leaves[0][:]), leaves[1][:]...)
	for size := uint32(1); size <= 4; size++ {
		p := Proof{Index: 0, Size: size, Path: tr.levels[1][1][:]}
		if got, err := p.Commitment(posed); err == nil && bytes.Equal(got[:len(tag)], want[:len(tag)]) && bytes.Equal(got[len(tag)+2:], want[len(tag)+2:]) {
			t.Errorf("an inner node proves as a nonce in a tree of %d", size)
		}
	}
	if leaf(0, posed) == node(leaves[0][:], leaves[1][:]) {
		t.Error("leaf and node hash alike")
	}
}

func TestEveryBitOfAProofCounts(t *testing.T) {
	all := nonces(13)
	tr := tree(t, all)
	for i, nonce := range all {
		good := tr.Proof(i)
		for bit := range len(good.Path) * 8 {
			p := good
			p.Path = slices.Clone(good.Path)
			p.Path[bit/8] ^= 1 << (bit % 8)
			if got, err := p.Commitment(nonce); err != nil || bytes.Equal(got, tr.Commitment()) {
				t.Errorf("nonce %d: bit %d of the path does not count: %v", i, bit, err)
			}
		}
	}
}

func TestMalformedProofsAreRefused(t *testing.T) {
	tr := tree(t, nonces(5))
	good, nonce := tr.Proof(1), nonces(5)[1]
	for name, p := range map[string]Proof{
		"nothing":          {},
		"size 0":           {Index: 0, Size: 0, Path: good.Path},
		"index is size":    {Index: 5, Size: 5, Path: good.Path},
		"huge index":       {Index: 1<<32 - 1, Size: 5, Path: good.Path},
		"too many":         {Index: 1, Size: MaxSize + 1, Path: make([]byte, MaxPath+HashSize)},
		"size of 16 bits":  {Index: 1, Size: 5 + 1<<16, Path: good.Path},
		"no path":          {Index: 1, Size: 5},
		"path too short":   {Index: 1, Size: 5, Path: good.Path[HashSize:]},
		"path too long":    {Index: 1, Size: 5, Path: append(slices.Clone(good.Path), make([]byte, HashSize)...)},
		"half a hash less": {Index: 1, Size: 5, Path: good.Path[:len(good.Path)-HashSize/2]},
		"path in a single": {Index: 0, Size: 1, Path: make([]byte, HashSize)},
	} {
		if got, err := p.Commitment(nonce); !errors.Is(err, ErrProof) {
			t.Errorf("%s: %x, %v: want ErrProof", name, got, err)
		}
	}
	for _, n := range []int{0, MinNonce - 1, MaxNonce + 1} {
		if _, err := good.Commitment(make([]byte, n)); !errors.Is(err, ErrProof) {
			t.Errorf("nonce of %d bytes: %v: want ErrProof", n, err)
		}
		if _, err := New([][]byte{make([]byte, n)}); err == nil {
			t.Errorf("a tree over a nonce of %d bytes is made", n)
		}
	}
	for _, n := range []int{0, MaxSize + 1} {
		if _, err := New(nonces(n)); err == nil {
			t.Errorf("a tree of %d is made", n)
		}
	}
}

// Known answers, so that others can build the same tree.
func TestKnownCommitments(t *testing.T) {
	for size, root := range known {
		want := fmt.Sprintf("%x%04x%s", "waxseal-batch-1\x00", size, root)
		if got := hex.EncodeToString(tree(t, nonces(size)).Commitment()); got != want {
			t.Errorf("size %d: %s: want %s", size, got, want)
		}
	}
}

func FuzzProof(f *testing.F) {
	all := nonces(5)
	tr, err := New(all)
	if err != nil {
		f.Fatal(err)
	}
	for i, nonce := range all {
		p := tr.Proof(i)
		f.Add(p.Index, p.Size, p.Path, nonce)
	}
	f.Fuzz(func(t *testing.T, index, size uint32, path, nonce []byte) {
		p := Proof{index, size, path}
		got, err := p.Commitment(nonce)
		if err != nil {
			if !errors.Is(err, ErrProof) {
				t.Fatal(err)
			}
			return
		}
		if len(got) != CommitmentSize || !IsCommitment(got) || len(path) > MaxPath {
			t.Fatalf("commitment of %d bytes from a path of %d", len(got), len(path))
		}
		// What proves under a tree that we know is one of its nonces with its path.
		if bytes.Equal(got, tr.Commitment()) {
			if int(index) >= len(all) || !bytes.Equal(nonce, all[index]) || !bytes.Equal(path, tr.Proof(int(index)).Path) {
				t.Fatalf("nonce %x proves as %d of %d", nonce, index, size)
			}
		}
	})
}
