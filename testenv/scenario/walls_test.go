package scenario

import "testing"

// TestWalls tells what others do on a gateway that keeps packets from being
// steered. The service fails closed and the inspector lives: nothing reaches the
// origin past it, `status` names the wall that stopped it, and mail flows again
// once the others are gone.
func TestWalls(t *testing.T) { tell(t, "testdata/walls") }
