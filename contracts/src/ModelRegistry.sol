// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";

/// Which models the market knows, each named by what it is: repository, file and the SHA-256 of the weights. Anyone proposes, the
/// owner approves and deprecates; what a model id stands for never changes.
contract ModelRegistry is Ownable2Step {
    enum Status {
        Unknown,
        Proposed,
        Approved,
        Deprecated
    }

    struct Model {
        string repository;
        string file;
        bytes32 sha256Hash;
        Status status;
    }

    uint256 public constant MAX_NAME_BYTES = 256;

    mapping(bytes32 modelId => Model) private _models;
    bytes32[] private _ids;

    event ModelProposed(
        bytes32 indexed modelId, address indexed proposer, string repository, string file, bytes32 sha256Hash
    );
    event ModelApproved(bytes32 indexed modelId);
    event ModelDeprecated(bytes32 indexed modelId);

    error BadName();
    error BadHash();
    error ModelKnown();
    error ModelUnknown();
    error StatusUnchanged();
    error ZeroLimit();

    constructor(address owner) Ownable(owner) {}

    function propose(string calldata repository, string calldata file, bytes32 sha256_) external returns (bytes32 id) {
        _checkName(repository);
        _checkName(file);
        if (sha256_ == 0) revert BadHash();
        id = idOf(repository, file, sha256_);
        if (_models[id].status != Status.Unknown) revert ModelKnown();
        _models[id] = Model(repository, file, sha256_, Status.Proposed);
        _ids.push(id);
        emit ModelProposed(id, msg.sender, repository, file, sha256_);
    }

    function approve(bytes32 id) external onlyOwner {
        _change(id, Status.Approved);
        emit ModelApproved(id);
    }

    /// No new host can offer it; running jobs are not touched.
    function deprecate(bytes32 id) external onlyOwner {
        _change(id, Status.Deprecated);
        emit ModelDeprecated(id);
    }

    function _change(bytes32 id, Status to) private {
        Status from = _models[id].status;
        if (from == Status.Unknown) revert ModelUnknown();
        if (from == to) revert StatusUnchanged();
        _models[id].status = to;
    }

    function _checkName(string calldata name) private pure {
        if (bytes(name).length == 0 || bytes(name).length > MAX_NAME_BYTES) revert BadName();
    }

    function idOf(string calldata repository, string calldata file, bytes32 sha256_) public pure returns (bytes32) {
        return keccak256(abi.encode(repository, file, sha256_));
    }

    function isApproved(bytes32 id) external view returns (bool) {
        return _models[id].status == Status.Approved;
    }

    /// An empty model with status Unknown where there is none.
    function model(bytes32 id) external view returns (Model memory) {
        return _models[id];
    }

    /// Up to `limit` models in the order of their proposals; `next` is 0 at the end, else the cursor of the next page.
    function models(uint256 cursor, uint256 limit)
        external
        view
        returns (bytes32[] memory ids, Model[] memory page, uint256 next)
    {
        if (limit == 0) revert ZeroLimit();
        uint256 total = _ids.length;
        uint256 start = cursor < total ? cursor : total;
        uint256 count = total - start < limit ? total - start : limit;
        ids = new bytes32[](count);
        page = new Model[](count);
        for (uint256 i; i < count; ++i) {
            ids[i] = _ids[start + i];
            page[i] = _models[ids[i]];
        }
        next = start + count < total ? start + count : 0;
    }
}
