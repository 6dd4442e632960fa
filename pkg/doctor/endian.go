package doctor

import (
	"encoding/binary"
)

// littleEndian tells the byte order of this machine.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1
