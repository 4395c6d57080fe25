// The instruction set that a source file is built for. The build defines, for every level,
//     GRADSCORE_LEVEL  its name, which is the namespace of all code built for it
//     GRADSCORE_BYTES  the size of its vectors
//     GRADSCORE_ROWS   the number of weights in a tile that its registers hold
// and none of them for sources that run on every processor: what those share with the levels lies in `common`.
//
// The namespaces matter: the linker keeps one of all functions with the same name, and one that was built for another
// instruction set must never stand in for it. For the same reason the levels use no template of the standard library.
#pragma once

#if !defined(GRADSCORE_LEVEL)
#define GRADSCORE_LEVEL common
#endif
