// Package merkle lets one quote answer many challengers: their nonces are the
// leaves of a hash tree, root and size of the tree are what the TPM signs, and
// each challenger gets the path from its nonce to the root.
//
// Whoever holds a path learns that its own nonce, as it was sent, was in the
// tree when the TPM signed. It learns nothing about the nonces of others. The
// tree has the shape of RFC 6962, section 2.1; leaves and inner nodes are
// hashed apart, a leaf names its index, and the size is signed beside the
// root, so that a nonce stands under one index of one tree and no inner node
// passes for a nonce.
//
// The package is pure, keeps nothing, and never decides whether a quote is
// genuine.
package merkle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// Bounds of a tree and of what is in it.
const (
	MaxSize  = 4096 // leaves of a tree
	MaxPath  = 12 * HashSize
	HashSize = sha256.Size
	MinNonce = 16 // bytes, as in attestz
	MaxNonce = 64
)

// tag begins what the TPM signs and everything that is hashed. It has 16
// bytes: with a size of two and a root of 32 that is a commitment of 50, the
// most that TPM2B_DATA holds in a TPM whose longest hash is SHA-384 (TPM 2.0
// Part 2, section 10.4.3: the size of TPMT_HA).
const tag = "waxseal-batch-1\x00"

// CommitmentSize is the size of a commitment in bytes.
const CommitmentSize = len(tag) + 2 + HashSize

// Kinds of what is hashed (RFC 6962, section 2.1).
const (
	kindLeaf = 0
	kindNode = 1
)

// ErrProof means that a proof has not the form of one.
var ErrProof = errors.New("batch proof is malformed")

type hash = [HashSize]byte

// leaf returns the hash of a nonce under its index.
func leaf(index int, nonce []byte) hash {
	var room [len(tag) + 1 + 2 + MaxNonce]byte
	b := append(append(room[:0], tag...), kindLeaf)
	b = binary.BigEndian.AppendUint16(b, uint16(index))
	return sha256.Sum256(append(b, nonce...))
}

// node returns the hash of two nodes, or leaves, side by side.
func node(left, right []byte) hash {
	var room [len(tag) + 1 + 2*HashSize]byte
	b := append(append(room[:0], tag...), kindNode)
	return sha256.Sum256(append(append(b, left...), right...))
}

// commitment is what the TPM signs: tag, size and root.
func commitment(size int, root hash) []byte {
	b := append(make([]byte, 0, CommitmentSize), tag...)
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	return append(b, root[:]...)
}

// IsCommitment tells whether b begins as a commitment does. No nonce of a
// single challenge may: the TPM's signature over it would speak for a batch.
func IsCommitment(b []byte) bool { return bytes.HasPrefix(b, []byte(tag)) }

// Tree is a hash tree over nonces. It does not change.
type Tree struct {
	levels [][]hash // leaves first; the last level is the root alone
}

// New returns the tree over nonces, in this order.
func New(nonces [][]byte) (Tree, error) {
	if len(nonces) == 0 || len(nonces) > MaxSize {
		return Tree{}, fmt.Errorf("batch of %d nonces: need 1 to %d", len(nonces), MaxSize)
	}
	level := make([]hash, len(nonces))
	for i, nonce := range nonces {
		if err := checkNonce(nonce); err != nil {
			return Tree{}, err
		}
		level[i] = leaf(i, nonce)
	}
	t := Tree{levels: [][]hash{level}}
	for len(level) > 1 {
		level = above(level)
		t.levels = append(t.levels, level)
	}
	return t, nil
}

func checkNonce(nonce []byte) error {
	if len(nonce) < MinNonce || len(nonce) > MaxNonce {
		return fmt.Errorf("%w: nonce of %d bytes: need %d to %d", ErrProof, len(nonce), MinNonce, MaxNonce)
	}
	return nil
}

// above returns the next level: pairs are hashed, and a node without a
// neighbour goes up as it is. That is the tree of RFC 6962, from below.
func above(level []hash) []hash {
	next := make([]hash, 0, (len(level)+1)/2)
	for i := 0; i+1 < len(level); i += 2 {
		next = append(next, node(level[i][:], level[i+1][:]))
	}
	if len(level)%2 == 1 {
		next = append(next, level[len(level)-1])
	}
	return next
}

// Size returns the number of leaves.
func (t Tree) Size() int { return len(t.levels[0]) }

// Commitment returns what is to become the quote's extraData.
func (t Tree) Commitment() []byte {
	return commitment(t.Size(), t.levels[len(t.levels)-1][0])
}

// Proof returns the proof of the nonce with this index, which must be one of
// the tree's.
func (t Tree) Proof(index int) Proof {
	p := Proof{Index: uint32(index), Size: uint32(t.Size())}
	p.Path = make([]byte, 0, (len(t.levels)-1)*HashSize)
	for _, level := range t.levels[:len(t.levels)-1] {
		if beside := index ^ 1; beside < len(level) {
			p.Path = append(p.Path, level[beside][:]...)
		}
		index /= 2
	}
	return p
}

// Proof is the path of one nonce. It comes from a device and is a claim until
// its commitment is found in a quote.
type Proof struct {
	Index uint32 // of the nonce, from 0
	Size  uint32 // leaves of the tree
	Path  []byte // the neighbours on the way up, HashSize bytes each
}

// Check tells whether the proof has the form of one: an index below the size,
// and a path of exactly the length that the two ask for.
func (p Proof) Check() error {
	if p.Size == 0 || p.Size > MaxSize || p.Index >= p.Size {
		return fmt.Errorf("%w: nonce %d of %d: at most %d", ErrProof, p.Index, p.Size, MaxSize)
	}
	if want := steps(p.Index, p.Size) * HashSize; len(p.Path) != want {
		return fmt.Errorf("%w: path of %d bytes for nonce %d of %d: need %d", ErrProof, len(p.Path), p.Index, p.Size, want)
	}
	return nil
}

// steps returns how many neighbours lie on the way from a leaf to the root:
// one for each level but those where the node is the last and has none.
func steps(index, size uint32) int {
	shared := bits.Len32(index ^ (size - 1)) // levels below the one where the two ways meet
	return shared + bits.OnesCount32(index>>shared)
}

// Commitment returns the only extraData under which the proof holds for
// nonce. The caller compares it with what the TPM signed.
func (p Proof) Commitment(nonce []byte) ([]byte, error) {
	if err := checkNonce(nonce); err != nil {
		return nil, err
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	at := leaf(int(p.Index), nonce)
	index, path := p.Index, p.Path
	for last := p.Size - 1; last > 0; last, index = last/2, index/2 {
		switch {
		case index%2 == 1:
			at = node(path[:HashSize], at[:])
		case index < last:
			at = node(at[:], path[:HashSize])
		default:
			continue // without a neighbour: it goes up as it is
		}
		path = path[HashSize:]
	}
	return commitment(int(p.Size), at), nil
}
