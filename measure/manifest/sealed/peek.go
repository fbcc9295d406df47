package sealed

import "fmt"

// Peek returns the payload of a sealed file whose signatures nobody has looked
// at: whoever likes can have written it. It is for telling people what a file
// claims, never for trusting it.
func Peek(kind string, data []byte) ([]byte, error) {
	f, err := parse(data)
	if err != nil {
		return nil, err
	}
	if f.Kind != kind {
		return nil, fmt.Errorf("%w: it is a %q: need %q", ErrKind, f.Kind, kind)
	}
	return f.Payload, nil
}
