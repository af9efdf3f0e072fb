--- Files seen cheaply: whether they are there, whether they changed, and their bytes without a copy in Lua.

local ffi = require "ffi"

ffi.cdef [[
struct gw_time { int64_t seconds; uint32_t nanoseconds; int32_t unused; };
struct gw_statx {
    uint32_t mask, block; uint64_t attributes; uint32_t links, uid, gid; uint16_t mode, unused;
    uint64_t inode, size, blocks, attributes_mask;
    struct gw_time accessed, born, changed, modified;
    uint64_t more[16];
};
int statx(int directory, const char *path, int flags, unsigned mask, struct gw_statx *found);
int open(const char *path, int flags, ...);
int close(int file);
int unlink(const char *path);
ssize_t write(int file, const void *bytes, size_t size);
ssize_t pwrite(int file, const void *bytes, size_t size, long at);
void *mmap(void *wish, size_t size, int protection, int flags, int file, long at);
int munmap(void *address, size_t size);
]]

local C = ffi.C
local HERE, BASIC = -100, 0x7ff
local O_RDONLY, O_RDWR, O_NEW, O_CLOEXEC = 0, 2, 64 + 128 + 1, 0x80000
local PROT_READ, MAP_SHARED = 1, 1
local MAP_FAILED = ffi.cast("void *", -1)
local ENOENT = 2

local found = ffi.new("struct gw_statx")

--- What changes whenever the file does, as a string; nil and the error number when it cannot be seen.
local function stamp(path)
    if C.statx(HERE, path, 0, BASIC, found) ~= 0 then
        return nil, ffi.errno()
    end
    return string.format(
        "%d.%d.%d.%d.%d", tonumber(found.inode), tonumber(found.size), tonumber(found.modified.seconds),
        found.modified.nanoseconds, found.changed.nanoseconds
    )
end

--- Whether there is something, or something that we may not see.
local function exists(path)
    return C.statx(HERE, path, 0, BASIC, found) == 0 or ffi.errno() ~= ENOENT
end

local function read(path)
    local file, problem = io.open(path, "rb")
    if not file then
        return nil, problem
    end
    local text = file:read("*a")
    file:close()
    return text
end

--- Shows a file's bytes in memory: pointer and size, or nil. `forget` must follow.
local function show(path)
    local file = C.open(path, O_RDONLY + O_CLOEXEC)
    if file < 0 then
        return nil
    end
    local size = C.statx(HERE, path, 0, BASIC, found) == 0 and tonumber(found.size) or 0
    local address = size > 0 and C.mmap(nil, size, PROT_READ, MAP_SHARED, file, 0) or MAP_FAILED
    C.close(file)
    if address == MAP_FAILED then
        return nil
    end
    return ffi.cast("const uint8_t *", address), size
end

local function forget(address, size)
    C.munmap(ffi.cast("void *", address), size)
end

--- Puts bytes in the place of as many others.
local function overwrite(path, at, text)
    local file = C.open(path, O_RDWR + O_CLOEXEC)
    if file < 0 then
        return false
    end
    local done = C.pwrite(file, text, #text, at) == #text
    C.close(file)
    return done
end

local function write_all(file, bytes, size)
    while size > 0 do
        local done = tonumber(C.write(file, bytes, size))
        if done <= 0 then
            return false
        end
        bytes, size = bytes + done, size - done
    end
    return true
end

--- Writes a new file of the first `head` bytes at `p`, `text`, and the bytes from `tail` to `stop`.
local function splice(path, p, head, text, tail, stop)
    local file = C.open(path, O_NEW + O_CLOEXEC, ffi.cast("int", 384)) -- 0600
    if file < 0 then
        return false
    end
    local between = ffi.cast("const uint8_t *", text)
    local done = write_all(file, p, head) and write_all(file, between, #text) and write_all(file, p + tail, stop - tail)
    C.close(file)
    if not done then
        C.unlink(path)
    end
    return done
end

--- Returns a function that reads a file when it changed. It returns false while nothing did; else the text, or nil and
--- why there is none.
local function watch(path)
    local last = false
    return function()
        local now, code = stamp(path)
        now = now or code
        if now == last then
            return false
        end
        last = now
        if type(now) == "number" then
            return nil, now == ENOENT and "No such file or directory" or "error " .. now
        end
        return read(path)
    end
end

return {
    exists = exists, forget = forget, overwrite = overwrite, read = read, show = show, splice = splice, watch = watch,
}
