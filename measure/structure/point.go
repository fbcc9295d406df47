package structure

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"fmt"
	"math/big"
)

// Point returns the public key with the coordinates of a TPMS_ECC_POINT (TPM
// 2.0 Part 2, section 11.2.5.2), big-endian and at most as long as the curve's
// field. A point that is not on the curve is an error.
func Point(curve elliptic.Curve, x, y []byte) (*ecdsa.PublicKey, error) {
	size := (curve.Params().BitSize + 7) / 8
	if len(x) > size || len(y) > size {
		return nil, fmt.Errorf("point of %d and %d bytes on a curve of %d", len(x), len(y), size)
	}
	point := make([]byte, 1+2*size)
	point[0] = 4 // uncompressed (SEC 1, section 2.3.3)
	new(big.Int).SetBytes(x).FillBytes(point[1 : 1+size])
	new(big.Int).SetBytes(y).FillBytes(point[1+size:])
	return ecdsa.ParseUncompressedPublicKey(curve, point)
}
